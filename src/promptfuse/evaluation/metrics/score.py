"""Score captions: every metric that can be had, with intervals, and why the others cannot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics.base import Captions, Column, JudgingModels, Metric, Unavailable, mean
from promptfuse.evaluation.metrics.registry import JUDGED, METRICS
from promptfuse.evaluation.metrics.registry import metrics as registered
from promptfuse.evaluation.metrics.scores import Scores, with_intervals
from promptfuse.evaluation.metrics.selection import choose, is_chosen
from promptfuse.evaluation.metrics.tokens import Kind

if TYPE_CHECKING:
    from promptfuse.evaluation.metrics.text_judge import TextJudge
    from promptfuse.models import Model

SEARCHED = "searched model"
"""In the titles of verdicts of a classifier that was searched with, unless an independent judge is there."""


def score(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    metrics: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    required: bool | None = None,
    images: Mapping[str, Any] | None = None,
    clip: Model | None = None,
    lm: Model | None = None,
    classifier: Model | None = None,
    label: str | None = None,
    text_judge: TextJudge | None = None,
    searched: Iterable[str] = (),
    costs: Mapping[str, Mapping[str, float]] | None = None,
    tokenizer: Kind = "auto",
    seed: int = 0,
    resamples: int = 1000,
    progress: Callable[[str], None] | None = None,
) -> Scores:
    """Score one caption a photo.

    Args:
        predictions: captions by the photos' ids.
        references: captions that people wrote, by the photos' ids; empty if there are none at all.
        metrics: names of columns or groups in ``METRICS``; None for all.
        ids: the photos in the order of what is returned and drawn; by default that of the references, or of
            the sorted ids where there are none, so that it does not depend on that of the predictions.
        required: whether a metric whose package is missing is an error; by default if metrics are named.
        images: photos by id, for CLIPScore: paths, addresses, Pillow images, or features that
            ``photo_features`` gave, so that several systems on the same photos share them.
        clip: image-text model that judges.
        lm: causal language model that judges.
        classifier: classifier that judges.
        label: which of its labels the captions should have.
        text_judge: judge that was trained on labelled texts.
        searched: identities of the models that the captions were searched with; of runs that have none yet,
            fingerprints.
        costs: what each photo took, by name and id, such as ``seconds``; their means become columns.
        tokenizer: ``stanford``, ``python``, or ``auto`` for the first where there is Java.
        seed: of the bootstrap and of what metrics draw.
        resamples: of the bootstrap; 0 for no intervals.
        progress: is told the group of metrics that comes next.

    All columns are about the same photos: those with a caption and, if any photo has references, with these.
    How many are left out is told by ``notices`` and ``left_out``.

    Raises:
        ConfigError: if no prediction has references though there are some, a metric or label is not known, a
            metric was asked for by name but its package is missing, or there is nothing to score.
        ModelError: if a model is of the wrong kind.
    """
    if resamples < 0:
        raise ConfigError(f"resamples must be at least 0, got {resamples}; 0 gives no intervals")
    chosen = choose(metrics)
    if text_judge is not None and JUDGED in chosen:
        chosen[JUDGED] = {_judged_column(name, text_judge) for name in chosen[JUDGED]}
    judging = JudgingModels(clip, lm, classifier, label, text_judge)
    required = metrics is not None if required is None else required
    judges = {group: _create(group, judging, required) for group in chosen}
    captions, notices, left_out = _collect(predictions, references, ids, images, seed, tokenizer)
    found: list[Column | Unavailable] = []
    for group, metric in judges.items():
        if progress is not None:
            progress(group)
        measured = _measure(group, metric, captions, required)
        found += [column for column in measured if is_chosen(column.name, chosen[group], group)]
    for name, each in (costs or {}).items():
        values = [each.get(id_, math.nan) for id_ in captions.ids]
        found.append(mean(name, name.replace("_", " "), "lower", values))
    models = {
        role: model.describe()
        for role, model in (
            ("judge", clip),
            ("lm", lm),
            ("classifier", classifier),
            ("text_judge", text_judge.encoder if text_judge is not None else None),
        )
        if model is not None
    }
    known = set(searched)
    favoured = [role for role, model in models.items() if known & {model["identity"], model["fingerprint"]}]
    notices += [_favoured(role, models[role]["name"]) for role in favoured]
    independent = text_judge is not None and "text_judge" not in favoured
    if "classifier" in favoured and not independent:
        found = [_marked(column) if column.name in METRICS["sentiment"] else column for column in found]
    judged = any(isinstance(one, Column) and one.name.startswith(JUDGED) for one in found)
    if text_judge is not None and judged:
        notices += [f"labelled texts: {notice}" for notice in text_judge.notices]
    tokens = captions.tokens if "tokens" in captions.__dict__ else None
    if tokens is not None and tokens.reason:
        notices.append(f"words are split by rules close to Java's tokenizer ({tokens.reason})")
    return Scores(
        ids=tuple(captions.ids),
        metrics=with_intervals(found, resamples, seed),
        columns={column.name: column for column in found if isinstance(column, Column)},
        tokenizer=tokens.kind if tokens is not None else "",
        models=models,
        judge_is_searched="judge" in favoured,
        text_judge=text_judge.to_dict() if text_judge is not None else None,
        notices=tuple(notices),
        resamples=resamples,
        seed=seed,
        left_out=left_out,
    )


def _favoured(role: str, name: str) -> str:
    """A line about a model that is to judge what was found with it."""
    column = {
        "judge": "CLIPScore",
        "lm": "perplexity",
        "classifier": "sentiment accuracy",
        "text_judge": "the judged labels' encoder",
    }[role]
    if role == "text_judge":
        return (
            f"{column} is {name}, which guided the search for the captions and may favour them; use another"
        )
    return f"{column} is by {name}, which guided their search and so favours them; use another judge"


def _marked(column: Column | Unavailable) -> Column | Unavailable:
    """A column whose title says that it is the verdict of a model that was searched with."""
    return replace(column, title=f"{column.title} ({SEARCHED})")


def _judged_column(name: str, judge: TextJudge) -> str:
    """The name of a judged column as it is spelled; it may be asked for in any case.

    Raises:
        ConfigError: if the judge has no such label.
    """
    label = name.removeprefix(JUDGED).removeprefix("_")
    return f"{JUDGED}_{judge.labels[judge.label_index(label)]}" if label else name


class _NotCreated(Metric):
    """Stands for a metric that could not be made, and says why."""

    def __init__(self, titles: Mapping[str, str], reason: str) -> None:
        self.titles = titles  # type: ignore[misc]
        self.reason = reason

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        del captions
        return self.unavailable(self.reason)


def _create(group: str, models: JudgingModels, required: bool) -> Metric:
    """The metric; one of another package that cannot be made costs its own columns alone."""
    kind = registered[group]
    try:
        return kind.create(models)
    except ConfigError as error:
        # Ours raise for a label that the classifier does not have, which the caller has to correct.
        if required or kind.__module__.startswith("promptfuse."):
            raise
        return _NotCreated(kind.titles, str(error))


def _measure(group: str, metric: Metric, captions: Captions, required: bool) -> list[Column | Unavailable]:
    """The metric's columns; without references or its package, why there are none."""
    if metric.needs_references and not any(captions.references):
        return metric.unavailable("there are no references; give captions that people wrote")
    try:
        return metric.measure(captions)
    except ConfigError as error:
        # Of all metrics those that can be had are computed; of one that was asked for the error is told.
        if required:
            raise
        return [Unavailable(name, title, str(error)) for name, title in METRICS[group].items()]


def _collect(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    order: Sequence[str] | None,
    images: Mapping[str, Any] | None,
    seed: int,
    tokenizer: Kind,
) -> tuple[Captions, list[str], dict[str, int]]:
    """What is to be scored, what there is to say about it, and how many photos are left out, by reason.

    Raises:
        ConfigError: if there is nothing to score, no prediction has references, or either is not text.
    """
    if not predictions:
        raise ConfigError("no predictions to score; give at least one caption")
    notices = []
    for id_, text in predictions.items():
        if not isinstance(text, str):
            raise ConfigError(
                f"the prediction for {id_!r} is not a text: {text!r:.60}; give one caption a photo"
            )
        if isinstance(references.get(id_), str):
            raise ConfigError(f"the references for {id_!r} are one text; give a list of texts")
    asked: Iterable[str] = predictions if order is None else [id_ for id_ in order if id_ in predictions]
    if order is None:
        order = list(references) or sorted(predictions)
    ids = [id_ for id_ in order if id_ in predictions]
    without = 0
    if any(references.get(id_) for id_ in references):
        bare = [id_ for id_ in asked if not references.get(id_)]
        without = len(bare)
        if bare and len(bare) == len(list(asked)):
            raise ConfigError(
                f"there are no references for {bare[0]!r} or any other prediction, their ids look like "
                f"{next(iter(references))!r}; give the references of the captioned photos"
            )
        if bare:
            photos = f"{without} of {len(list(asked))} photos have no references and are left out"
            notices.append(f"{photos}, e.g. {bare[0]!r}")
            ids = [id_ for id_ in ids if references.get(id_)]
    missing = len(references.keys() - predictions.keys())
    if missing:
        notices.append(f"{missing} of {len(references)} photos have no prediction; the others are scored")
    empty = sum(not predictions[id_].strip() for id_ in ids)
    if empty:
        notices.append(f"{empty} of {len(ids)} captions are empty; they are scored as they are")
    captions = Captions(
        ids,
        [predictions[id_] for id_ in ids],
        [list(references.get(id_, ())) for id_ in ids],
        None if images is None else [images.get(id_) for id_ in ids],
        seed,
        tokenizer,
    )
    return captions, notices, {"no_references": without, "no_prediction": missing}

"""The numbers of a report: the metrics of `score`, and the objective with its terms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from promptfuse.evaluation.metrics import METRICS, Column, Score, Unavailable, score
from promptfuse.evaluation.metrics.base import Better, Floats, mean
from promptfuse.evaluation.metrics.bootstrap import (
    Difference,
    paired_difference,
    percentile_interval,
    resample,
)
from promptfuse.evaluation.metrics.registry import JUDGED
from promptfuse.evaluation.metrics.score import SEARCHED
from promptfuse.evaluation.predictions import Prediction
from promptfuse.report.runs.comparison import Comparison
from promptfuse.report.runs.folders import Run
from promptfuse.report.runs.judges import Judges, is_independent, labels_of, searched_by, warnings

OBJECTIVE = "objective"
TERM = "terms."
"""What the names of terms begin with, so that none is taken for a metric."""

SIMILARITY = "image_similarity"
"""One minus the loss of the term ``image``: the cosine."""

LIKELY = "likely."
"""Before a term of a label: the share of captions that the search's model gives the label more than half."""

JAVA = ("meteor", "spice")
"""Groups of metrics that are Java programs, which take many times as long as all others."""

ACCURACY = "sentiment_accuracy"
"""Before a point and a label: how many captions a classifier that judges gives the label."""

_JUDGED = {
    "clipscore": "--clip",
    "perplexity": "--lm",
    "sentiment": "--classifier",
    JUDGED: "--judge-texts with --judge-model",
}
_NO_MODEL = "no model is given; {} adds it"


@dataclass(frozen=True)
class Measured:
    """Numbers of each run of a comparison.

    Attributes:
        comparison: the runs and their photos.
        scores: for each run its numbers by name, in the order of tables.
        columns: what they came from: values of single captions, (photos,) each.
        drawn: for each run its numbers on resampled photos, the same for all runs, (resamples,) each.
        weights: of the objective's terms, the same for all runs.
        warnings: what may mislead a reader, a line each.
        notes: what else a reader should know, a line each.
        text_judge: how the judge of labels was trained and how often it is right; None without one.
    """

    comparison: Comparison
    scores: Sequence[Mapping[str, Score | Unavailable]]
    columns: Sequence[Mapping[str, Column]] = field(repr=False)
    drawn: Sequence[Mapping[str, Floats]] = field(repr=False)
    weights: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    text_judge: Mapping[str, Any] | None = None

    def names(self) -> list[str]:
        """All columns of all runs, in the order of tables."""
        return list(dict.fromkeys(name for found in self.scores for name in found))

    def score(self, run: int, name: str) -> Score | None:
        """A number, if the run has it."""
        found = self.scores[run].get(name)
        return found if isinstance(found, Score) and math.isfinite(found.value) else None

    def column(self, name: str) -> list[Score | None]:
        """A number of all runs; None for a run that lacks it."""
        return [self.score(run, name) for run in range(len(self.scores))]

    def title(self, name: str) -> str:
        """What a column is called."""
        return next((found[name].title for found in self.scores if name in found), name)

    def better(self, name: str) -> Better:
        """Which direction of a column is better; neither if the runs were searched for opposite things."""
        ways = {score.better for score in self.column(name) if score is not None}
        return ways.pop() if len(ways) == 1 else "neither"

    def difference(self, run: int, other: int, name: str) -> Difference | None:
        """A run's number less another's with its paired interval; None where there is none of it."""
        own, theirs = (self.drawn[number].get(name) for number in (run, other))
        if own is None or theirs is None:
            return None
        value = self.columns[run][name].value - self.columns[other][name].value
        found = paired_difference(value, own, theirs)
        return found if math.isfinite(found.low) else None

    def to_dict(self) -> dict[str, Any]:
        """As in JSON; differences are from the first run."""
        comparison = self.comparison
        return {
            "dataset": comparison.dataset,
            "photos": len(comparison.ids),
            "weights": dict(self.weights),
            "runs": [
                {
                    "name": run.name,
                    "folder": run.folder,
                    "photos": len(run.predictions),
                    "failed": len(run.failures),
                    "metrics": {
                        name: {"unavailable": one.reason} if isinstance(one, Unavailable) else _plain(one)
                        for name, one in self.scores[number].items()
                    },
                    "differences": {
                        name: {"value": between.value, "low": between.low, "high": between.high}
                        for name in self.scores[number]
                        if number and (between := self.difference(number, 0, name)) is not None
                    },
                }
                for number, run in enumerate(comparison.runs)
            ],
            "text_judge": dict(self.text_judge) if self.text_judge is not None else None,
            "warnings": list(self.warnings),
            "notes": [*comparison.notes, *self.notes],
        }


def measure_runs(
    comparison: Comparison,
    judges: Judges | None = None,
    *,
    metrics: Sequence[str] | None = None,
    java: bool = False,
    resamples: int = 1000,
) -> Measured:
    """Score each run on the photos that all of them captioned.

    Args:
        comparison: the runs.
        judges: models for further columns.
        metrics: names of metrics or groups, as in `score`; None for all.
        java: whether all metrics include those that are Java programs.
        resamples: of the bootstrap; 0 for no intervals.

    Raises:
        ConfigError: if a metric is not known, or there is no label for a classifier to look for.
        ModelError: if a judge is of the wrong kind.
    """
    judges = judges or Judges()
    runs, ids = comparison.runs, comparison.ids
    labels = labels_of(runs, judges)
    weights, notes = _weights(runs, ids)
    found: list[dict[str, Column | Unavailable]] = [{} for _ in runs]
    if ids:
        chosen, left_out = (metrics, {}) if metrics is not None else _all_metrics(judges, java)
        photos = _photos(comparison, judges)
        for number, run in enumerate(runs):
            measured, about = _metrics(run, comparison, judges, chosen, photos, metrics is not None)
            notes += about
            if set(chosen) & {ACCURACY, "sentiment"}:
                measured |= _accuracies(run, comparison, judges, labels)
            ordered = sorted((measured | left_out).items(), key=lambda item: _place(item[0]))
            own = [*_terms(run, comparison, weights, judges), *_costs(run, ids)]
            found[number] = {**dict(ordered), **{one.name: one for one in own}}
    else:
        notes.append("No photo has a caption by every run, so there are no numbers.")
    columns = [{name: one for name, one in own.items() if isinstance(one, Column)} for own in found]
    drawn = _draw(columns, resamples)
    scores = [
        {name: _score(one, draws.get(name)) if isinstance(one, Column) else one for name, one in own.items()}
        for own, draws in zip(found, drawn, strict=True)
    ]
    warned = warnings(runs, judges)
    if weights:
        listed = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
        notes.append(
            f"The objective is one weighted sum for all runs, with the weights of {runs[0].name}: {listed}."
        )
        warned.append(
            "The objective and its terms come from the models that the captions were searched with: they "
            "show how well the search did, not how good the captions are."
        )
    judge = judges.text.to_dict() if judges.text is not None else None
    return Measured(comparison, scores, columns, drawn, weights, warned, list(dict.fromkeys(notes)), judge)


def objective(prediction: Prediction, weights: Mapping[str, float]) -> float:
    """A caption's losses, weighted and summed; NaN if it lacks one."""
    return sum(weight * prediction.terms.get(name, math.nan) for name, weight in weights.items())


def _all_metrics(judges: Judges, java: bool) -> tuple[list[str], dict[str, Unavailable]]:
    """The groups that can be computed, and the columns of the others with the reason."""
    models = (judges.clip, judges.lm, judges.classifier, judges.text)
    reasons = {
        group: _NO_MODEL.format(option)
        for (group, option), model in zip(_JUDGED.items(), models, strict=True)
        if model is None
    }
    if not java:
        reasons |= dict.fromkeys(JAVA, "a Java program, which is slow; --java adds it")
    left_out = {
        name: Unavailable(name, title, reason)
        for group, reason in reasons.items()
        for name, title in METRICS[group].items()
    }
    return [group for group in METRICS if group not in reasons], left_out


def _place(name: str) -> int:
    """Where a column stands in `METRICS`."""
    names = [name for group in METRICS.values() for name in group]
    return names.index(JUDGED if name.startswith(JUDGED) else name.partition(".")[0])


def _photos(comparison: Comparison, judges: Judges) -> dict[str, Any] | None:
    """What a CLIPScore's model sees of the photos, once for all runs."""
    if judges.clip is None:
        return None
    from promptfuse.evaluation.metrics.clipscore import photo_features

    features, _ = photo_features(judges.clip, [comparison.image(id_) for id_ in comparison.ids])
    return dict(zip(comparison.ids, features, strict=True))


def _metrics(
    run: Run,
    comparison: Comparison,
    judges: Judges,
    chosen: Sequence[str],
    photos: dict[str, Any] | None,
    required: bool,
) -> tuple[dict[str, Column | Unavailable], list[str]]:
    """The run's metrics on the common photos by name, and what there is to say about them."""
    metrics = [name for name in chosen if name not in (ACCURACY, "sentiment")]
    if not metrics:
        return {}, []
    found = score(
        _texts(run, comparison.ids),
        {id_: comparison.references[id_] for id_ in comparison.ids if id_ in comparison.references},
        metrics=metrics,
        ids=comparison.ids,
        required=required,
        images=photos,
        clip=judges.clip,
        lm=judges.lm,
        text_judge=judges.text,
        resamples=0,
    )
    # Notes have no room in the page's tables. What holds for the judge is the same for all runs.
    judge = judges.text.about if judges.text is not None else ""
    notes = dict.fromkeys(
        f"{run.name}, {column.title}: {column.note}."
        for column in found.columns.values()
        if column.note and column.note != judge
    )
    if any(name.startswith(JUDGED) for name in found.columns):
        notes[f"Judged labels: {judge}."] = None
    columns = {
        name: one if isinstance(one, Unavailable) else found.columns[name]
        for name, one in found.metrics.items()
    }
    return columns, [*found.notices, *notes]


def _texts(run: Run, ids: Sequence[str]) -> dict[str, str]:
    return {id_: run.predictions[id_].text or "" for id_ in ids}


def _accuracies(
    run: Run, comparison: Comparison, judges: Judges, labels: Sequence[str]
) -> dict[str, Column | Unavailable]:
    """How many captions a classifier gives each label; every run is asked for all of them."""
    if not labels:
        reason = _NO_MODEL.format(_JUDGED["sentiment"])
        return {name: Unavailable(name, title, reason) for name, title in METRICS["sentiment"].items()}
    ids, model = comparison.ids, judges.classifier
    searched = model is not None and searched_by(comparison.runs, model)
    mark = _mark(comparison, judges) if searched else ""
    found: dict[str, Column | Unavailable] = {}
    for label in labels:
        texts = _texts(run, ids)
        one = score(texts, {}, metrics=[ACCURACY], ids=ids, classifier=model, label=label, resamples=0)
        column, name = one.columns[ACCURACY], f"{ACCURACY}.{label}"
        found[name] = replace(column, name=name, title=column.title + mark)
    return found


def _mark(comparison: Comparison, judges: Judges) -> str:
    """What follows the title of a verdict by a model of the search, unless an independent judge is there."""
    return "" if is_independent(comparison.runs, judges) else f" ({SEARCHED})"


def _terms(
    run: Run, comparison: Comparison, weights: Mapping[str, float], judges: Judges
) -> Iterator[Column | Unavailable]:
    """The objective and each term as columns."""
    chosen = [run.predictions[id_] for id_ in comparison.ids]
    names = list(dict.fromkeys(name for one in chosen for name in one.terms))
    if missing := [name for name in weights if name not in names]:
        reason = f"{run.name} has no term {', '.join(missing)}, which is part of the objective"
        yield Unavailable(OBJECTIVE, "objective", reason)
    elif weights:
        yield mean(OBJECTIVE, "objective", "lower", [objective(one, weights) for one in chosen])
    if "image" in names:
        similar = [1 - one.terms.get("image", math.nan) for one in chosen]
        yield mean(SIMILARITY, "image similarity", "higher", similar)
    for name in names:
        values = [one.terms.get(name, math.nan) for one in chosen]
        wanted = chosen[0].weights.get(name, 1.0) >= 0
        if name == "sentiment" or name.startswith("steer:"):
            # Its loss is the negative log-probability of the label.
            likely = [math.nan if math.isnan(value) else float(value < math.log(2)) for value in values]
            title = f"{name.removeprefix('steer:')} likely{_mark(comparison, judges)}"
            note = "share of captions for which the search's own model gives the label more than one half"
            yield mean(LIKELY + name, title, "higher" if wanted else "lower", likely, note=note)
        yield mean(TERM + name, f"{name} loss", "lower" if wanted else "higher", values)


def _costs(run: Run, ids: Sequence[str]) -> Iterator[Column]:
    chosen = [run.predictions[id_] for id_ in ids]
    yield mean("seconds", "seconds a photo", "lower", [one.seconds for one in chosen])
    yield mean("exact_evaluations", "exact evaluations", "lower", [one.exact_evaluations for one in chosen])


def _weights(runs: Sequence[Run], ids: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """The first run's weights, and a note where its captions do not have the same."""
    given = [runs[0].predictions[id_].weights for id_ in ids]
    if not given or not given[0]:
        return {}, [f"{runs[0].name} does not record its weights, so there is no objective."] if given else []
    others = sum(one != given[0] for one in given)
    notes = [f"{others} captions of {runs[0].name} were found with other weights."] if others else []
    return dict(given[0]), notes


def _draw(columns: Sequence[Mapping[str, Column]], resamples: int) -> list[dict[str, Floats]]:
    """What each column of each run gives on the same resampled photos."""
    drawn = iter(resample([one for own in columns for one in own.values()], resamples=resamples))
    # Columns that cannot be resampled give nothing.
    return [{name: values for name in own if len(values := next(drawn))} for own in columns]


def _score(column: Column, drawn: Floats | None) -> Score:
    ends = percentile_interval(drawn) if drawn is not None else (math.nan, math.nan)
    low, high = (end if math.isfinite(end) else None for end in ends)
    return Score(column.title, column.better, column.value, low, high, column.n, column.note, len(column.cut))


def _plain(score: Score) -> dict[str, Any]:
    """A number as in JSON, which has no NaN."""
    return {name: None if value != value else value for name, value in score.to_dict().items()}

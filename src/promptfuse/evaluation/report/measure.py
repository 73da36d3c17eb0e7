"""The numbers of a report: the metrics of `score`, and the objective with its terms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics import Column, Score, Scores, Unavailable, score
from promptfuse.evaluation.metrics.base import Better, Floats, mean
from promptfuse.evaluation.metrics.bootstrap import Interval, draw_counts, intervals
from promptfuse.evaluation.predictions import Prediction
from promptfuse.evaluation.report.load import Comparison, Run

if TYPE_CHECKING:
    from promptfuse.models import Model

OBJECTIVE = "objective"
TERM = "terms."
"""What the names of terms begin with, so that none is taken for a metric."""

SIMILARITY = "image_similarity"
"""One minus the loss of the term ``image``: the cosine."""

LIKELY = "likely"
"""How many captions the classifier that was searched with gives more than half to the label."""

_LIKELY_NOTE = "by the classifier that was searched with"

RESAMPLES = 1000


@dataclass(frozen=True)
class Judges:
    """Models that judge captions, beside those that were searched with.

    Attributes:
        clip: image-text model.
        lm: causal language model.
        classifier: classifier of texts.
        label: which of its labels the captions should have.
    """

    clip: Model | None = None
    lm: Model | None = None
    classifier: Model | None = None
    label: str | None = None

    def given(self) -> dict[str, Model]:
        """Those that there are, by what they are called in warnings."""
        named = {
            "CLIPScore's model": self.clip,
            "perplexity's LM": self.lm,
            "the classifier": self.classifier,
        }
        return {name: model for name, model in named.items() if model is not None}


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
    """

    comparison: Comparison
    scores: Sequence[Mapping[str, Score | Unavailable]]
    columns: Sequence[Mapping[str, Column]] = field(repr=False)
    drawn: Sequence[Mapping[str, Floats]] = field(repr=False)
    weights: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()

    def names(self) -> list[str]:
        """All columns of all runs, in the order of tables."""
        return list(dict.fromkeys(name for found in self.scores for name in found))

    def score(self, run: int, name: str) -> Score | None:
        """A number, if the run has it."""
        found = self.scores[run].get(name)
        return found if isinstance(found, Score) and math.isfinite(found.value) else None

    def difference(self, run: int, other: int, name: str) -> Interval | None:
        """A run's number less another's with its paired interval; None where there is none of it."""
        own, theirs = (self.drawn[number].get(name) for number in (run, other))
        if own is None or theirs is None:
            return None
        found = own - theirs
        found = found[np.isfinite(found)]
        if not len(found):
            return None
        low, high = np.quantile(found, [0.025, 0.975])
        value = self.columns[run][name].value - self.columns[other][name].value
        return Interval(value, float(low), float(high))

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
                    "folder": str(run.folder),
                    "photos": len(run.predictions),
                    "failed": len(run.failures),
                    "metrics": {
                        name: {"unavailable": one.reason} if isinstance(one, Unavailable) else one.to_dict()
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
            "warnings": list(self.warnings),
            "notes": [*comparison.notes, *self.notes],
        }


def measure_runs(
    comparison: Comparison,
    judges: Judges | None = None,
    *,
    metrics: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
) -> Measured:
    """Score each run on the photos that all of them captioned.

    Args:
        comparison: the runs.
        judges: models for further columns.
        metrics: names of metrics or groups, as in `score`; None for all.
        resamples: of the bootstrap; 0 for no intervals.

    Raises:
        ConfigError: if a metric is not known.
    """
    judges = judges or Judges()
    runs, ids = comparison.runs, comparison.ids
    weights, about = _weights(runs, ids)
    warnings = [*_same_models(runs), *_searched_judges(runs, judges)]
    if not ids:
        notes = [*about, "No photo has a caption by every run, so there are no numbers."]
        none: list[dict[str, Any]] = [{} for _ in runs]
        return Measured(comparison, none, none, none, weights, warnings, notes)
    scores, columns = [], []
    for run in runs:
        found = _score(run, comparison, judges, metrics, resamples)
        about += found.notices
        cost = ("seconds", "exact_evaluations")
        own = [*_terms(run, ids, weights)]
        bounds = _bounds([one for one in own if isinstance(one, Column)], resamples)
        metric_scores = {name: one for name, one in found.metrics.items() if name not in cost}
        term_scores = {one.name: one if isinstance(one, Unavailable) else bounds[one.name] for one in own}
        cost_scores = {name: found.metrics[name] for name in cost if name in found.metrics}
        scores.append({**metric_scores, **term_scores, **cost_scores})
        columns.append({**found.columns, **{one.name: one for one in own if isinstance(one, Column)}})
    if weights:
        about.append(
            "The objective is the same weighted sum for all runs, by the weights of "
            f"{runs[0].name}: {', '.join(f'{name} {weight:g}' for name, weight in weights.items())}."
        )
        warnings.append(
            "The objective and its terms are by the models that were searched with: they tell how well "
            "a search did, not how good its captions are."
        )
    drawn = _draw(columns, len(ids), resamples if len(runs) > 1 else 0)
    return Measured(comparison, scores, columns, drawn, weights, warnings, list(dict.fromkeys(about)))


def _draw(columns: Sequence[Mapping[str, Column]], photos: int, resamples: int) -> list[dict[str, Floats]]:
    """What each column of each run gives on the same resampled photos."""
    found: list[dict[str, list[Floats]]] = [
        {name: [] for name, column in own.items() if column.resamples} for own in columns
    ]
    for counts in draw_counts(photos, resamples, seed=0) if resamples else ():
        for own, parts in zip(columns, found, strict=True):
            for name, values in parts.items():
                values.append(own[name].estimate(counts))
    return [{name: np.concatenate(part) for name, part in parts.items() if part} for parts in found]


def _score(
    run: Run,
    comparison: Comparison,
    judges: Judges,
    metrics: Sequence[str] | None,
    resamples: int,
) -> Scores:
    """The run's metrics on the common photos."""
    chosen = {id_: run.predictions[id_] for id_ in comparison.ids}
    return score(
        {id_: one.text or "" for id_, one in chosen.items()},
        {id_: comparison.references[id_] for id_ in comparison.ids if id_ in comparison.references},
        metrics=metrics,
        images={id_: comparison.image(id_) for id_ in comparison.ids} if judges.clip else None,
        clip=judges.clip,
        lm=judges.lm,
        classifier=judges.classifier,
        label=judges.label,
        searched=[model["fingerprint"] for model in run.models.values()],
        costs={
            "seconds": {id_: one.seconds for id_, one in chosen.items()},
            "exact_evaluations": {id_: float(one.exact_evaluations) for id_, one in chosen.items()},
        },
        resamples=resamples,
    )


def _terms(run: Run, ids: Sequence[str], weights: Mapping[str, float]) -> Iterator[Column | Unavailable]:
    """The objective and each term as columns."""
    chosen = [run.predictions[id_] for id_ in ids]
    names = list(dict.fromkeys(name for one in chosen for name in one.terms))
    if weights and (missing := [name for name in weights if name not in names]):
        reason = f"{run.name} has no term {', '.join(missing)}, which the objective is made of"
        yield Unavailable(OBJECTIVE, "objective", reason)
    elif weights:
        values = [objective(one, weights) for one in chosen]
        yield mean(OBJECTIVE, "objective", "lower", values)
    if "image" in names:
        similar = [1 - one.terms.get("image", math.nan) for one in chosen]
        yield mean(SIMILARITY, "image similarity", "higher", similar)
    if "sentiment" in names:
        likely = [float(one.terms["sentiment"] < math.log(2)) for one in chosen if "sentiment" in one.terms]
        if len(likely) == len(chosen):
            yield mean(LIKELY, "label more likely than not", "higher", likely, note=_LIKELY_NOTE)
    for name in names:
        better: Better = "higher" if weights.get(name, 1.0) < 0 else "lower"
        values = [one.terms.get(name, math.nan) for one in chosen]
        yield mean(TERM + name, f"{name} loss", better, values)


def objective(prediction: Prediction, weights: Mapping[str, float]) -> float:
    """A caption's losses, weighted and summed; NaN if it lacks one."""
    return sum(weight * prediction.terms.get(name, math.nan) for name, weight in weights.items())


def _bounds(columns: Sequence[Column], resamples: int) -> dict[str, Score]:
    found = intervals(columns, resamples=resamples)
    return {
        column.name: Score(
            column.title,
            column.better,
            one.value,
            one.low if math.isfinite(one.low) else None,
            one.high if math.isfinite(one.high) else None,
            column.n,
        )
        for column, one in zip(columns, found, strict=True)
    }


def _weights(runs: Sequence[Run], ids: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """The first run's weights, and a note where its captions do not have the same."""
    given = [runs[0].predictions[id_].weights for id_ in ids]
    if not given or not given[0]:
        return {}, [f"{runs[0].name} does not tell its weights, so there is no objective."]
    others = sum(one != given[0] for one in given)
    notes = [f"{others} captions of {runs[0].name} were found with other weights."] if others else []
    return dict(given[0]), notes


def _same_models(runs: Sequence[Run]) -> Iterator[str]:
    """A line for each role that runs have different models in: their losses do not compare."""
    for role in dict.fromkeys(role for run in runs for role in run.models):
        found = {model["fingerprint"]: model["name"] for run in runs if (model := run.models.get(role))}
        if len(found) > 1:
            yield (
                f"The runs have different models as {role} ({', '.join(found.values())}): "
                "their losses by it do not compare."
            )


def _searched_judges(runs: Sequence[Run], judges: Judges) -> Iterator[str]:
    """A line for each judge that captions were searched with."""
    for title, model in judges.given().items():
        names = [
            run.name
            for run in runs
            if model.fingerprint in {found["fingerprint"] for found in run.models.values()}
        ]
        if names:
            yield (
                f"{title[0].upper()}{title[1:]} ({model.name}) is one that captions of "
                f"{', '.join(names)} were searched with, which favours them; judge by another model."
            )


def load_judges(
    clip: str | None = None,
    lm: str | None = None,
    classifier: str | None = None,
    label: str | None = None,
    device: str = "cpu",
) -> Judges:
    """Load models that judge.

    Raises:
        ConfigError: if a classifier comes without a label or a label without a classifier.
        ModelError: if a model cannot be loaded.
    """
    if classifier and not label:
        raise ConfigError(f"--classifier {classifier}: give the label that captions should have by --label")
    if label and not classifier:
        raise ConfigError(f"--label {label}: give the model that knows the label by --classifier")
    if not (clip or lm or classifier):
        return Judges()
    from promptfuse.models import load_model

    def load(name: str | None) -> Model | None:
        return None if name is None else load_model(name, device=device)

    return Judges(load(clip), load(lm), load(classifier), label)

"""The numbers of a report: the metrics of `score`, and the objective with its terms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from promptfuse.evaluation.metrics import METRICS, Column, Score, Unavailable, score
from promptfuse.evaluation.metrics.base import Better, Floats, mean
from promptfuse.evaluation.metrics.bootstrap import Interval, draw_counts
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
"""Before a term of a label: how many captions the model that was searched with gives it more than half."""

JAVA = ("meteor", "spice")
"""Groups of metrics that are Java programs, which take many times as long as all others."""

RESAMPLES = 1000
LEVEL = 0.95

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

    def better(self, name: str) -> Better:
        """Which way a column is better; neither if the runs were searched for opposite things."""
        found = [self.score(run, name) for run in range(len(self.scores))]
        ways = {score.better for score in found if score is not None}
        return ways.pop() if len(ways) == 1 else "neither"

    def difference(self, run: int, other: int, name: str) -> Interval | None:
        """A run's number less another's with its paired interval; None where there is none of it."""
        own, theirs = (self.drawn[number].get(name) for number in (run, other))
        if own is None or theirs is None or len(own) != len(theirs):
            return None
        low, high = _ends(own - theirs)
        if not math.isfinite(low):
            return None
        return Interval(self.columns[run][name].value - self.columns[other][name].value, low, high)

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
    resamples: int = RESAMPLES,
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
        chosen, left_out = _choose(judges, metrics, java)
        photos = _photos(comparison, judges)
        for number, run in enumerate(runs):
            measured, about = _metrics(run, comparison, judges, chosen, photos, metrics is not None)
            notes += about
            if set(chosen) & {ACCURACY, "sentiment"}:
                measured |= _accuracies(run, comparison, judges, labels)
            own = [*_terms(run, comparison, weights, judges), *_costs(run, ids)]
            found[number] = {**_in_order({**measured, **left_out}), **{one.name: one for one in own}}
    else:
        notes.append("No photo has a caption by every run, so there are no numbers.")
    columns = [{name: one for name, one in own.items() if isinstance(one, Column)} for own in found]
    drawn = _draw(columns, len(ids), resamples)
    scores = [
        {name: _score(one, draws.get(name)) if isinstance(one, Column) else one for name, one in own.items()}
        for own, draws in zip(found, drawn, strict=True)
    ]
    warned = warnings(runs, judges)
    if weights:
        listed = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
        notes.append(
            f"The objective is one weighted sum for all, with the weights of {runs[0].name}: {listed}."
        )
        warned.append(
            "The objective and its terms are by the models that were searched with: they tell how well "
            "a search did, not how good its captions are."
        )
    judge = judges.text.to_dict() if judges.text is not None else None
    return Measured(comparison, scores, columns, drawn, weights, warned, list(dict.fromkeys(notes)), judge)


def objective(prediction: Prediction, weights: Mapping[str, float]) -> float:
    """A caption's losses, weighted and summed; NaN if it lacks one."""
    return sum(weight * prediction.terms.get(name, math.nan) for name, weight in weights.items())


def _choose(
    judges: Judges, metrics: Sequence[str] | None, java: bool
) -> tuple[Sequence[str], dict[str, Unavailable]]:
    """The metrics to compute, and those that all metrics are without, by the names of their columns."""
    if metrics is not None:
        return metrics, {}
    without = {
        group: _NO_MODEL.format(option)
        for (group, option), model in zip(
            _JUDGED.items(), (judges.clip, judges.lm, judges.classifier, judges.text), strict=True
        )
        if model is None
    }
    if not java:
        without |= dict.fromkeys(JAVA, "a Java program, which takes its time; --java adds it")
    left_out = {
        name: Unavailable(name, title, reason)
        for group, reason in without.items()
        for name, title in METRICS[group].items()
    }
    return [group for group in METRICS if group not in without], left_out


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
) -> tuple[dict[str, Column | Unavailable], Sequence[str]]:
    """The run's metrics on the common photos by name, and what there is to say about them."""
    metrics = [name for name in chosen if name not in (ACCURACY, "sentiment")]
    if not metrics:
        return {}, ()
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
    missing = {name: one for name, one in found.metrics.items() if isinstance(one, Unavailable)}
    # A page has no room for them in its tables. What holds for the judge is the same of all runs.
    judge = judges.text.about if judges.text is not None else ""
    notes = {
        column.note: f"{run.name}, {column.title}: {column.note}."
        for column in found.columns.values()
        if column.note and column.note != judge
    }
    if any(name.startswith(JUDGED) for name in found.columns):
        notes[judge] = f"Judged labels: {judge}."
    return {name: missing.get(name) or found.columns[name] for name in found.metrics}, [
        *found.notices,
        *notes.values(),
    ]


def _texts(run: Run, ids: Sequence[str]) -> dict[str, str]:
    return {id_: run.predictions[id_].text or "" for id_ in ids}


def _accuracies(
    run: Run, comparison: Comparison, judges: Judges, labels: Sequence[str]
) -> dict[str, Column | Unavailable]:
    """How many captions a classifier gives each label; every run is asked for all of them."""
    ids, model = comparison.ids, judges.classifier
    searched = model is not None and bool(searched_by(comparison.runs, model))
    mark = _mark(comparison, judges) if searched else ""
    found: dict[str, Column | Unavailable] = {}
    if not labels:
        reason = _NO_MODEL.format(_JUDGED["sentiment"])
        found = {name: Unavailable(name, title, reason) for name, title in METRICS["sentiment"].items()}
    for label in labels:
        one = score(
            _texts(run, ids), {}, metrics=[ACCURACY], ids=ids, classifier=judges.classifier, label=label,
            resamples=0,
        )  # fmt: skip
        name = f"{ACCURACY}.{label}"
        column = one.columns[ACCURACY]
        found[name] = replace(column, name=name, title=column.title + mark)
    return found


def _costs(run: Run, ids: Sequence[str]) -> Iterator[Column]:
    """What the photos took."""
    chosen = [run.predictions[id_] for id_ in ids]
    yield mean("seconds", "seconds a photo", "lower", [one.seconds for one in chosen])
    yield mean("exact_evaluations", "exact evaluations", "lower", [one.exact_evaluations for one in chosen])


def _in_order(columns: Mapping[str, Column | Unavailable]) -> dict[str, Column | Unavailable]:
    """Columns in the order of `METRICS`."""
    names = [name for group in METRICS.values() for name in group]

    def place(name: str) -> int:
        return names.index(JUDGED if name.startswith(JUDGED) else name.partition(".")[0])

    return dict(sorted(columns.items(), key=lambda item: place(item[0])))


def _mark(comparison: Comparison, judges: Judges) -> str:
    """What stands behind the title of a verdict of a model that was searched with.

    Nothing where an independent judge's verdict stands beside it.
    """
    return "" if is_independent(comparison.runs, judges) else f" ({SEARCHED})"


def _terms(
    run: Run, comparison: Comparison, weights: Mapping[str, float], judges: Judges
) -> Iterator[Column | Unavailable]:
    """The objective and each term as columns."""
    chosen = [run.predictions[id_] for id_ in comparison.ids]
    names = list(dict.fromkeys(name for one in chosen for name in one.terms))
    if weights and (missing := [name for name in weights if name not in names]):
        reason = f"{run.name} has no term {', '.join(missing)}, which the objective is made of"
        yield Unavailable(OBJECTIVE, "objective", reason)
    elif weights:
        yield mean(OBJECTIVE, "objective", "lower", [objective(one, weights) for one in chosen])
    if "image" in names:
        similar = [1 - one.terms.get("image", math.nan) for one in chosen]
        yield mean(SIMILARITY, "image similarity", "higher", similar)
    own = chosen[0].weights
    for name in names:
        values = [one.terms.get(name, math.nan) for one in chosen]
        wanted = own.get(name, 1.0) >= 0
        if name == "sentiment" or name.startswith("steer:"):
            # Its loss is the negative log-probability of the label.
            likely = [math.nan if math.isnan(value) else float(value < math.log(2)) for value in values]
            title = f"{name.removeprefix('steer:')} likely{_mark(comparison, judges)}"
            note = "share of captions that the model searched with gives the label more than half"
            yield mean(LIKELY + name, title, "higher" if wanted else "lower", likely, note=note)
        better: Better = "lower" if wanted else "higher"
        yield mean(TERM + name, f"{name} loss", better, values)


def _weights(runs: Sequence[Run], ids: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """The first run's weights, and a note where its captions do not have the same."""
    given = [runs[0].predictions[id_].weights for id_ in ids]
    if not given or not given[0]:
        return {}, [f"{runs[0].name} does not tell its weights, so there is no objective."] if given else []
    others = sum(one != given[0] for one in given)
    notes = [f"{others} captions of {runs[0].name} were found with other weights."] if others else []
    return dict(given[0]), notes


def _draw(columns: Sequence[Mapping[str, Column]], photos: int, resamples: int) -> list[dict[str, Floats]]:
    """What each column of each run gives on the same resampled photos."""
    found: list[dict[str, list[Floats]]] = [
        {name: [] for name, column in own.items() if column.resamples} for own in columns
    ]
    for counts in draw_counts(photos, resamples, seed=0) if photos else ():
        for own, parts in zip(columns, found, strict=True):
            for name, values in parts.items():
                values.append(own[name].estimate(counts))
    return [{name: np.concatenate(part) for name, part in parts.items() if part} for parts in found]


def _score(column: Column, drawn: Floats | None) -> Score:
    ends = (math.nan, math.nan) if drawn is None else _ends(drawn)
    low, high = (end if math.isfinite(end) else None for end in ends)
    return Score(column.title, column.better, column.value, low, high, column.n, column.note, len(column.cut))


def _ends(drawn: Floats) -> tuple[float, float]:
    """The middle share of what was drawn; resamples without a value do not count."""
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _plain(score: Score) -> dict[str, Any]:
    """A number as in JSON, which has no NaN."""
    return {name: None if value != value else value for name, value in score.to_dict().items()}

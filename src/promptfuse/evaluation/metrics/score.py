"""Score captions: every metric that can be had, with intervals, and why the others cannot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics.base import Better, Captions, Column, Metric, Unavailable, mean
from promptfuse.evaluation.metrics.bootstrap import Difference, difference, intervals
from promptfuse.evaluation.metrics.coco import Bleu, CiderD, RougeL

if TYPE_CHECKING:
    from promptfuse.models import Model


@dataclass(frozen=True)
class Score:
    """One metric of one system.

    Attributes:
        title: as in tables.
        better: which direction is better.
        value: on all photos.
        low: lower end of the bootstrap interval; None if the metric has none.
        high: upper end.
        n: how many captions gave a value.
        note: what a reader of the number has to know; empty if nothing.
    """

    title: str
    better: Better
    value: float
    low: float | None
    high: float | None
    n: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As in JSON."""
        found: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        return {**found, "note": self.note} if self.note else found


@dataclass(frozen=True)
class Scores:
    """What ``score`` found.

    Attributes:
        ids: the photos that were scored, in the order of the columns' values.
        metrics: by name, in the order of tables.
        columns: what the metrics came from, for values of single captions and for differences.
        tokenizer: ``stanford``, ``python``, or empty if no metric needed words.
        models: name and fingerprint of the models that judged, by role.
        judge_is_searched: whether the CLIPScore's model is one that the captions were searched with.
        notices: what else a reader has to know, a line each.
        resamples: of the bootstrap.
        seed: of the bootstrap and of what metrics draw.
    """

    ids: tuple[str, ...]
    metrics: dict[str, Score | Unavailable]
    columns: dict[str, Column] = field(repr=False)
    tokenizer: str = ""
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    judge_is_searched: bool = False
    notices: tuple[str, ...] = ()
    resamples: int = 1000
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As in JSON, numbers only of JSON's own kinds."""
        return {
            "photos": len(self.ids),
            "metrics": {
                name: {"unavailable": found.reason} if isinstance(found, Unavailable) else found.to_dict()
                for name, found in self.metrics.items()
            },
            "tokenizer": self.tokenizer,
            "models": self.models,
            "judge_is_searched": self.judge_is_searched,
            "notices": list(self.notices),
            "resamples": self.resamples,
            "seed": self.seed,
        }

    def captions(self) -> list[dict[str, Any]]:
        """For each photo its id and what its caption gives in each metric, None where it gives nothing."""
        rows: list[dict[str, Any]] = [{"id": id_} for id_ in self.ids]
        for name, column in self.columns.items():
            for row, value in zip(rows, column.values.tolist(), strict=True):
                row[name] = value if math.isfinite(value) else None
        return rows

    def difference(self, other: Scores, name: str) -> Difference:
        """This system's number less the other's in one metric, with its paired bootstrap interval.

        Raises:
            ConfigError: if the photos differ, or one of the two lacks the metric.
        """
        if self.ids != other.ids:
            raise ConfigError("the systems captioned different photos; score both on the common ones")
        for scores in (self, other):
            if name not in scores.columns:
                found = scores.metrics.get(name)
                reason = found.reason if isinstance(found, Unavailable) else "it was not asked for"
                raise ConfigError(f"no {name}: {reason}")
        return difference(self.columns[name], other.columns[name], resamples=self.resamples, seed=self.seed)


def score(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    metrics: Sequence[str] | None = None,
    images: Mapping[str, Any] | None = None,
    clip: Model | None = None,
    lm: Model | None = None,
    classifier: Model | None = None,
    label: str | None = None,
    searched: Iterable[str] = (),
    costs: Mapping[str, Mapping[str, float]] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Scores:
    """Score one caption a photo.

    Args:
        predictions: captions by the photos' ids.
        references: captions that people wrote, by the photos' ids; empty if there are none at all.
        metrics: names of metrics or groups (see ``METRICS``); None for all.
        images: photos by id, for CLIPScore.
        clip: image-text model that judges.
        lm: causal language model that judges.
        classifier: classifier that judges.
        label: which of its labels the captions should have.
        searched: fingerprints of the models that the captions were searched with.
        costs: what each photo took, by name and id, such as ``seconds``; their means become columns.
        seed: of the bootstrap and of what metrics draw.
        resamples: of the bootstrap; 0 for no intervals.

    Raises:
        ConfigError: if a prediction has no references, a metric is not known, or there is nothing to score.
    """
    captions, notices = _collect(predictions, references, images, seed)
    found: list[Column | Unavailable] = []
    for metric in [Bleu(), RougeL(), CiderD()]:
        found += _measure(metric, captions)
    for name, each in (costs or {}).items():
        found.append(
            mean(name, name.replace("_", " "), "lower", [each.get(i, math.nan) for i in captions.ids])
        )
    columns = [column for column in found if isinstance(column, Column)]
    bounds = dict(
        zip(
            [column.name for column in columns],
            intervals(columns, resamples=resamples, seed=seed),
            strict=True,
        )
    )
    result: dict[str, Score | Unavailable] = {}
    for column in found:
        if isinstance(column, Unavailable):
            result[column.name] = column
            continue
        bound = bounds[column.name]
        ends = [None if math.isnan(end) else end for end in (bound.low, bound.high)]
        result[column.name] = Score(
            column.title, column.better, bound.value, ends[0], ends[1], column.n, column.note
        )
    return Scores(
        ids=tuple(captions.ids),
        metrics=result,
        columns={column.name: column for column in columns},
        tokenizer=captions.tokens.kind if "tokens" in captions.__dict__ else "",
        notices=tuple(notices),
        resamples=resamples,
        seed=seed,
    )


def _measure(metric: Metric, captions: Captions) -> list[Column | Unavailable]:
    """The metric's columns, or that there are no references for it."""
    if metric.needs_references and not any(captions.references):
        return metric.unavailable("there are no references; give captions that people wrote")
    return metric.measure(captions)


def _collect(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    images: Mapping[str, Any] | None,
    seed: int,
) -> tuple[Captions, list[str]]:
    """What is to be scored, in the order of the predictions, and what there is to say about it."""
    if not predictions:
        raise ConfigError("no predictions: there is nothing to score; give at least one caption")
    notices = []
    written = {id_: list(texts) for id_, texts in references.items()}
    ids = list(predictions)
    if any(written.values()):
        for id_ in ids:
            if not written.get(id_):
                raise ConfigError(
                    f"the prediction for {id_!r} has no references; give the references of its data set"
                )
        missing = len(written) - len(ids)
        if missing:
            notices.append(f"{missing} of {len(written)} photos have no prediction; the others are scored")
    empty = sum(not predictions[id_].strip() for id_ in ids)
    if empty:
        notices.append(f"{empty} of {len(ids)} captions are empty; they are scored as they are")
    photos = None if images is None else [images.get(id_) for id_ in ids]
    captions = Captions(
        ids, [predictions[id_] for id_ in ids], [written.get(id_, []) for id_ in ids], photos, seed
    )
    return captions, notices


__all__ = ["Score", "Scores", "score"]

"""The result of scoring: numbers with intervals, as objects, JSON and a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics.base import Better, Column, Unavailable
from promptfuse.evaluation.metrics.bootstrap import Difference, difference, intervals


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
        cut: how many of the captions a model read only in part.
    """

    title: str
    better: Better
    value: float
    low: float | None
    high: float | None
    n: int
    note: str = ""
    cut: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As in JSON; ``note`` and ``cut`` only where there is something to say."""
        found: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        if self.cut:
            found["cut"] = self.cut
        return {**found, "note": self.note} if self.note else found


def with_intervals(
    columns: Sequence[Column | Unavailable], resamples: int, seed: int
) -> dict[str, Score | Unavailable]:
    """Scores of columns on the same photos, by name; a column without a finite number says so."""
    finite = [one for one in columns if isinstance(one, Column) and math.isfinite(one.value)]
    bounds = dict(zip(map(id, finite), intervals(finite, resamples=resamples, seed=seed), strict=True))
    found: dict[str, Score | Unavailable] = {}
    for column in columns:
        if isinstance(column, Unavailable):
            found[column.name] = column
        elif (bound := bounds.get(id(column))) is None:
            reason = column.note or "no caption gives a finite value"
            found[column.name] = Unavailable(column.name, column.title, reason)
        else:
            low, high = (end if math.isfinite(end) else None for end in (bound.low, bound.high))
            found[column.name] = Score(
                column.title, column.better, bound.value, low, high, column.n, column.note, len(column.cut)
            )
    return found


@dataclass(frozen=True)
class Scores:
    """What ``score`` found.

    Attributes:
        ids: the photos that were scored, in the order of the columns' values.
        metrics: by name, in the order of tables.
        columns: what the metrics came from, for values of single captions and for differences.
        tokenizer: ``stanford``, ``python``, or empty if no metric needed words.
        models: name, fingerprint and identity of the models that judged, by role: ``judge`` of CLIPScore,
            ``lm``, ``classifier``, ``text_judge`` (the encoder of the judge that was trained).
        judge_is_searched: whether the judge is a model that the captions were searched with.
        text_judge: how the judge of labels was trained and how often it is right; None without one.
        notices: what else a reader has to know, a line each.
        resamples: of the bootstrap.
        seed: of the bootstrap and of what metrics draw.
        left_out: how many photos are not scored, by reason: captions without references, references without
            a caption, and, of a run's files, photos that failed.
    """

    ids: tuple[str, ...]
    metrics: dict[str, Score | Unavailable]
    columns: dict[str, Column] = field(repr=False)
    tokenizer: str = ""
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    judge_is_searched: bool = False
    text_judge: dict[str, Any] | None = None
    notices: tuple[str, ...] = ()
    resamples: int = 1000
    seed: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As in JSON, whose numbers are all finite."""
        return {
            "photos": len(self.ids),
            "left_out": self.left_out,
            "metrics": {
                name: {"unavailable": found.reason} if isinstance(found, Unavailable) else found.to_dict()
                for name, found in self.metrics.items()
            },
            "tokenizer": self.tokenizer,
            "models": self.models,
            "judge_is_searched": self.judge_is_searched,
            "text_judge": self.text_judge,
            "notices": list(self.notices),
            "resamples": self.resamples,
            "seed": self.seed,
        }

    def per_caption(self) -> list[dict[str, Any]]:
        """For each photo its id and what its caption gives in each metric, None where it gives nothing.

        Where a model read a caption only in part, ``cut`` lists the metrics whose value is of that part.
        """
        rows: list[dict[str, Any]] = [{"id": id_} for id_ in self.ids]
        for name, column in self.columns.items():
            for row, value in zip(rows, column.values.tolist(), strict=True):
                row[name] = value if math.isfinite(value) else None
        for name, column in self.columns.items():
            for index in column.cut:
                rows[index].setdefault("cut", []).append(name)
        return rows

    def difference(self, other: Scores, name: str) -> Difference:
        """This system's number less the other's in one metric, with its paired bootstrap interval.

        Raises:
            ConfigError: if the photos differ, or one of the two lacks the metric.
        """
        if self.ids != other.ids:
            raise ConfigError(
                "the systems captioned different photos; score both on the photos that they share"
            )
        for scores in (self, other):
            if name not in scores.columns:
                found = scores.metrics.get(name)
                reason = found.reason if isinstance(found, Unavailable) else "it was not requested"
                raise ConfigError(f"no {name}: {reason}")
        return difference(self.columns[name], other.columns[name], resamples=self.resamples, seed=self.seed)

    def table(self) -> str:
        """Numbers and intervals in columns, then what is not available and why, then notices."""
        rows = [("metric", "value", "95% interval", "captions", "better")]
        for found in self.metrics.values():
            if isinstance(found, Score):
                digits = _digits(found)
                ends = [end for end in (found.low, found.high) if end is not None]
                interval = " .. ".join(_shown(end, digits) for end in ends) if ends else "-"
                value = _shown(found.value, digits)
                better = "" if found.better == "neither" else found.better
                rows.append((found.title, value, interval, str(found.n), better))
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if column in (0, 4) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        found_none = [one for one in self.metrics.values() if isinstance(one, Unavailable)]
        # Columns of one metric lack the same thing.
        reasons = dict.fromkeys(one.reason for one in found_none)
        for reason in reasons:
            titles = ", ".join(one.title for one in found_none if one.reason == reason)
            lines.append(f"{titles}: not available: {reason}")
        notes: dict[str, list[str]] = {}
        for found in self.metrics.values():
            if isinstance(found, Score) and found.note:
                notes.setdefault(found.note, []).append(found.title)
        lines += [f"{', '.join(titles)}: {note}" for note, titles in notes.items()]
        return "\n".join([*lines, *self.notices])


def _digits(score: Score) -> int:
    """Digits after the point: counts have none, and four figures are more than an interval leaves."""
    if float(score.value).is_integer() and score.low is None and score.value > 1:
        return 0
    return 3 if abs(score.value) < 10 else 2 if abs(score.value) < 100 else 1


def _shown(value: float, digits: int) -> str:
    """A number with its digits; one that is huge, as perplexities of noise are, by its size."""
    return f"{value:.3g}" if abs(value) >= 1e9 else f"{value:.{digits}f}"

"""Percentile bootstrap over photos: intervals of columns, and of differences between two systems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics.base import Column, Floats

_CELLS = 4_000_000
"""Counts that are held at the same time."""


@dataclass(frozen=True)
class Interval:
    """A number with its bootstrap interval.

    Attributes:
        value: on the photos as they are.
        low: lower end of the interval; NaN if the number has none.
        high: upper end.
    """

    value: float
    low: float
    high: float


def draw_counts(photos: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each photo is drawn in each resample, in portions of (some resamples, photos).

    The draws depend on the seed and the number of photos only, so that two systems on the same photos are
    resampled alike.
    """
    generator = np.random.default_rng(seed)
    portion = max(1, _CELLS // max(1, photos))
    for first in range(0, resamples, portion):
        rows = min(portion, resamples - first)
        drawn = generator.integers(photos, size=(rows, photos))
        drawn += np.arange(rows)[:, None] * photos
        yield np.bincount(drawn.ravel(), minlength=rows * photos).reshape(rows, photos).astype(np.float64)


def intervals(
    columns: Sequence[Column], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> list[Interval]:
    """Percentile bootstrap intervals (Efron & Tibshirani 1993, section 13.3) of columns on the same photos.

    Args:
        columns: with values of the same photos.
        resamples: how often the photos are drawn anew; 0 for no intervals.
        seed: of the draws.
        level: what share of the resamples an interval holds.
    """
    drawn = _resample(columns, resamples, seed)
    return [
        Interval(column.value, *_ends(drawn[index], level)) if column.resamples and resamples else
        Interval(column.value, float("nan"), float("nan"))
        for index, column in enumerate(columns)
    ]  # fmt: skip


@dataclass(frozen=True)
class Difference(Interval):
    """One system's number less another's, on the same photos, with its paired bootstrap interval.

    Attributes:
        p_value: two-sided: twice the smaller share of the resamples on one side of zero; NaN if no resample
            has a value.
    """

    p_value: float


def difference(
    first: Column, second: Column, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Difference:
    """The paired difference of two systems (Koehn 2004) in one column: first less second.

    Both are resampled with the same photos, so what makes a photo easy or hard for both cancels.

    Raises:
        ConfigError: if the columns are of different numbers of photos.
    """
    if len(first.values) != len(second.values):
        raise ConfigError(
            f"{first.name}: {len(first.values)} and {len(second.values)} photos; compare systems on the same"
        )
    value = first.value - second.value
    nothing = float("nan")
    if not (first.resamples and second.resamples and resamples):
        return Difference(value, nothing, nothing, nothing)
    ours, theirs = _resample([first, second], resamples, seed)
    found = ours - theirs
    # A resample in which a system has no value has no difference either, on no side of zero.
    found = found[np.isfinite(found)]
    low, high = _ends(found, level)
    if not len(found):
        return Difference(value, low, high, nothing)
    # Ties count for both sides: with equal systems every resample is a tie, and nothing is shown.
    fewer = min(int((found <= 0).sum()), int((found >= 0).sum()))
    # With the data as they are counted among the resamples, the share is never zero (Davison & Hinkley 1997).
    return Difference(value, low, high, min(1.0, 2 * (fewer + 1) / (len(found) + 1)))


def _resample(columns: Sequence[Column], resamples: int, seed: int) -> list[Floats]:
    """What each column gives on each resample, (resamples,) each; of those that can be resampled."""
    photos = len(columns[0].values) if columns else 0
    found: list[list[Floats]] = [[] for _ in columns]
    if photos:
        for counts in draw_counts(photos, resamples, seed):
            for column, parts in zip(columns, found, strict=True):
                if column.resamples:
                    parts.append(column.estimate(counts))
    return [np.concatenate(parts) if parts else np.empty(0) for parts in found]


def _ends(drawn: Floats, level: float) -> tuple[float, float]:
    """The middle share of what was drawn; resamples without a value do not count."""
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

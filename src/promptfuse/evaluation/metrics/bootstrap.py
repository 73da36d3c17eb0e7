"""Percentile bootstrap over photos: intervals of columns, and of differences between two systems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics.base import Column, Floats

_CELLS = 4_000_000
"""Most counts that are held at the same time."""


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


@dataclass(frozen=True)
class Difference(Interval):
    """One system's number less another's, on the same photos, with its paired bootstrap interval.

    Attributes:
        p_value: two-sided: twice the smaller share of the resamples on one side of zero; NaN if no resample
            has a value.
    """

    p_value: float


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


def resample(columns: Sequence[Column], *, resamples: int = 1000, seed: int = 0) -> list[Floats]:
    """What columns of the same photos give on the same resamples.

    Args:
        columns: one or more, of one system or of several.
        resamples: how often the photos are drawn anew.
        seed: of the draws.

    Returns:
        For each column (resamples,); (0,) for a column that cannot be resampled.
    """
    photos = len(columns[0].values) if columns else 0
    found: list[list[Floats]] = [[] for _ in columns]
    for counts in draw_counts(photos, resamples, seed) if photos else ():
        for column, parts in zip(columns, found, strict=True):
            if column.resamples:
                parts.append(column.estimate(counts))
    return [np.concatenate(parts) if parts else np.empty(0) for parts in found]


def percentile_interval(drawn: Floats, level: float = 0.95) -> tuple[float, float]:
    """The ends of the middle share of resampled values, (resamples,); NaN if none is finite."""
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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
    drawn = resample(columns, resamples=resamples, seed=seed)
    return [
        Interval(column.value, *percentile_interval(values, level))
        for column, values in zip(columns, drawn, strict=True)
    ]


def difference(
    first: Column, second: Column, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Difference:
    """The paired difference of two systems (Koehn 2004) in one column: first less second.

    Both are resampled with the same photos, so what makes a photo easy or hard for both cancels.

    Args:
        first: one system's column.
        second: the other's, of the same photos in the same order.
        resamples: how often the photos are drawn anew; 0 for no interval.
        seed: of the draws.
        level: what share of the resamples the interval holds.

    Raises:
        ConfigError: if the columns are of different numbers of photos.
    """
    if len(first.values) != len(second.values):
        raise ConfigError(
            f"{first.name}: {len(first.values)} and {len(second.values)} photos; compare systems on the "
            "same photos"
        )
    ours, theirs = resample([first, second], resamples=resamples, seed=seed)
    return paired_difference(first.value - second.value, ours, theirs, level)


def paired_difference(value: float, ours: Floats, theirs: Floats, level: float = 0.95) -> Difference:
    """A difference and its interval from what two systems give on the same resamples.

    Args:
        value: the difference on the photos as they are.
        ours: the first system's numbers, (resamples,); (0,) if it cannot be resampled.
        theirs: the second's, likewise.
        level: what share of the resamples the interval holds.
    """
    nothing = float("nan")
    if len(ours) != len(theirs):
        return Difference(value, nothing, nothing, nothing)
    # A resample in which a system has no value has no difference either, on no side of zero.
    found = (ours - theirs)[np.isfinite(ours - theirs)]
    if not len(found):
        return Difference(value, nothing, nothing, nothing)
    # Ties count for both sides: with equal systems every resample is a tie, and nothing is shown.
    fewer = min(int((found <= 0).sum()), int((found >= 0).sum()))
    # With the data as they are counted among the resamples, the share is never zero (Davison & Hinkley 1997).
    p_value = min(1.0, 2 * (fewer + 1) / (len(found) + 1))
    return Difference(value, *percentile_interval(found, level), p_value)

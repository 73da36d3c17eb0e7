"""How well estimates order candidates: rank correlation and recall. Lower is better throughout."""

from __future__ import annotations

import torch
from torch import Tensor


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1, the smallest value first; equal values share the mean of their ranks.

    Args:
        values: (K,), without nan.

    Returns:
        (K,), double precision.

    Raises:
        ValueError: if a value is nan.
    """
    if bool(values.isnan().any()):
        raise ValueError("cannot rank nan; leave out values without an estimate")
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    means: Tensor = counts.cumsum(0).double() - (counts.double() - 1) / 2
    return means[inverse]


def spearman(estimates: Tensor, truth: Tensor) -> float:
    """Spearman's rho: the correlation of the ranks, 0 if one side is constant.

    Args:
        estimates: (K,).
        truth: (K,).

    Source: Spearman, "The proof and measurement of association between two things" (1904).
    """
    a, b = (rank - rank.mean() for rank in (ranks(estimates), ranks(truth)))
    norm = float(a.norm() * b.norm())
    return float(a @ b) / norm if norm > 0 else 0.0


def recall(estimates: Tensor, truth: Tensor, best: int, among: int) -> float:
    """Share of the true best ``best`` candidates that are among the estimated best ``among``.

    Equal values count in the order in which they are given, so candidates should be in random order.

    Args:
        estimates: (K,).
        truth: (K,).
        best: how many are sought, at most K.
        among: how many are looked at; all if there are fewer.
    """
    sought = truth.argsort(stable=True)[:best]
    seen = estimates.argsort(stable=True)[:among]
    return float(torch.isin(sought, seen).double().mean())

"""The choice of the ridge on words that were held out.

The squared error of held-out words is a quadratic form in the map, and the map that a ridge gives is
diagonal in the eigenvectors of the fitted gram. So one eigendecomposition per slice gives the
error of every ridge; no map is formed for those that lose.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from promptfuse.adapters.moments import Moments, spectral_gains


def held_out_errors(fitted: Moments, held_out: Moments, ridges: Sequence[float], rcond: float) -> list[float]:
    """Squared error on held-out words of the maps fitted with each ridge.

    Args:
        fitted: moments of the words that the maps are fitted on.
        held_out: moments of the others.
        ridges: weights of the penalty, not negative.
        rcond: eigenvalues up to this times the largest count as zero without a ridge.

    Returns:
        For each ridge, ``held_out.squared_error(fitted.solve(ridge, rcond))``.
    """
    spectra = [torch.linalg.eigh(gram) for gram in fitted.grams]
    cutoff = rcond * max(float(values[-1]) for values, _ in spectra)
    errors = [held_out.power_b] * len(ridges)
    for s, (values, vectors) in enumerate(spectra):
        rotated = vectors.mH @ fitted.crosses[s]
        gram = vectors.mH @ held_out.grams[s] @ vectors
        cross = vectors.mH @ held_out.crosses[s]
        # With G = Q diag(f) R the error is f' K f - 2 f' v + const.
        quadratic = (gram * (rotated @ rotated.mH).mT).real
        linear = (rotated.conj() * cross).sum(1).real
        for k, ridge in enumerate(ridges):
            gains = spectral_gains(values, ridge, cutoff)
            errors[k] += fitted.share(s) * float(gains @ (quadratic @ gains - 2 * linear))
    return errors

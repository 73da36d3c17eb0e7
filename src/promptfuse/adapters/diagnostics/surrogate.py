"""Estimates corrected by the true losses of a few candidates.

A search sees the true losses of what it scores. Their deviations from the linear estimate are regressed on
the candidates' embeddings, and what the regression says about the other candidates is added to their
estimates.

Source: the predictor is universal kriging with a linear kernel (Cressie, "Statistics for Spatial Data",
1993, section 3.4); its leave-one-out errors have a closed form (Dubrule, 1983).
"""

from __future__ import annotations

import torch
from torch import Tensor

_RIDGES = tuple(10.0 ** (k / 2) for k in range(-8, 7))
"""Penalties to choose from, relative to the mean squared norm of the features."""


def ridge_surrogate(features: Tensor, estimates: Tensor, observed: Tensor, losses: Tensor) -> Tensor:
    """Predict every candidate's loss from the estimates of all and the true losses of some.

    The prediction is ``a + s * estimate + <w, features>`` with a penalty on w only, which is chosen by the
    leave-one-out error.

    Args:
        features: (K, d), what the candidates are, such as embeddings.
        estimates: (K,), what was expected of them.
        observed: (O,), indices of the candidates whose true losses are known; at least 4.
        losses: (O,), those losses.

    Returns:
        (K,), double precision. For an observed candidate it is what the *other* observed ones predict, so
        that predictions can be compared with the truth.

    Raises:
        ValueError: if fewer than 4 candidates are observed.
    """
    if len(observed) < 4:
        raise ValueError(f"{len(observed)} observed losses: a surrogate needs at least 4")
    y = losses.double()
    x = features.double() - features.double().mean(0)
    plain = torch.stack([torch.ones_like(estimates.double()), _standardised(estimates.double())], dim=1)
    kernel = x @ x[observed].T
    scale = float(kernel[observed].diagonal().mean()) or 1.0
    known = plain[observed]
    best: tuple[float, Tensor] | None = None
    for ridge in _RIDGES:
        inverse = torch.linalg.inv(kernel[observed] + ridge * scale * torch.eye(len(y), dtype=y.dtype))
        # The pseudo-inverse, since all estimates may be equal.
        slopes = torch.linalg.pinv(known.T @ inverse @ known) @ known.T @ inverse
        annihilator = inverse - inverse @ known @ slopes
        weights = annihilator @ y
        missed = weights / annihilator.diagonal()
        error = float(missed.square().sum())
        if best is None or error < best[0]:
            predicted = plain @ (slopes @ y) + kernel @ weights
            predicted[observed] = y - missed
            best = (error, predicted)
    assert best is not None
    return best[1]


def _standardised(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std().clamp_min(1e-12)

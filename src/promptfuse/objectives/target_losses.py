"""Losses of a target string from what a language model says of its tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from promptfuse.errors import ConfigError
from promptfuse.models.batch import TokenLoss

TargetLossName = Literal["nll", "mellowmax", "cw"]


@dataclass(frozen=True)
class TargetLoss:
    """How a target's loss is made.

    Attributes:
        tokens: each token's loss from logits; None for its NLL.
        combine: the rows' losses, (rows,), from those of tokens, (rows, columns), and which of them count.
    """

    tokens: TokenLoss | None
    combine: Callable[[Tensor, Tensor], Tensor]


def target_loss(name: TargetLossName, alpha: float, margin: float) -> TargetLoss:
    """A target's loss by its name; see ``TargetContinuation``.

    Raises:
        ConfigError: if there is none of the name, or a number is out of range.
    """
    if not 0 < alpha < 1e6:
        raise ConfigError(f"alpha: {alpha} is out of range; give a number above 0, such as 1")
    if not 0 <= margin < 1e6:
        raise ConfigError(f"margin: {margin} is out of range; give 0 or more")
    known = {
        "nll": TargetLoss(None, _mean),
        "mellowmax": TargetLoss(None, partial(_mellowmax, alpha=alpha)),
        "cw": TargetLoss(partial(_lead, margin=margin), _mean),
    }
    if name not in known:
        raise ConfigError(f"loss: {name!r} is unknown; choose {', '.join(known)}")
    return known[name]


def _mean(
    losses: Float[Tensor, "rows columns"], inside: Bool[Tensor, "rows columns"]
) -> Float[Tensor, " rows"]:
    total: Tensor = (losses * inside).sum(1)
    return total / inside.sum(1)


def _mellowmax(
    losses: Float[Tensor, "rows columns"], inside: Bool[Tensor, "rows columns"], alpha: float
) -> Float[Tensor, " rows"]:
    """log(mean(exp(alpha x loss))) / alpha (Asadi and Littman, 2017, equation 1)."""
    kept = (alpha * losses).masked_fill(~inside, -torch.inf)
    found: Tensor = (kept.logsumexp(1) - inside.sum(1).log()) / alpha
    return found


def _lead(
    logits: Float[Tensor, "tokens vocabulary"], targets: Int[Tensor, " tokens"], margin: float
) -> Float[Tensor, " tokens"]:
    """By how much the best other token's logit is above the target's, at least -margin."""
    own = logits.gather(1, targets[:, None])
    others = logits.scatter(1, targets[:, None], -torch.inf).amax(1)
    return (others - own[:, 0]).clamp_min(-margin)

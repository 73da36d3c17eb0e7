"""The precision that losses are computed in."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor
from torch.nn import functional

from promptfuse.models.batch import TokenLoss


def at_least_float32(tensor: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
    """Half-precision outputs in float32; anything wider as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def token_losses(
    logits: Float[Tensor, "tokens vocabulary"], targets: Int[Tensor, " tokens"], loss: TokenLoss | None
) -> Float[Tensor, " tokens"]:
    """Losses of tokens, (tokens,), from their logits: the NLL in nats, or another loss."""
    if loss is not None:
        return loss(logits, targets)
    return functional.cross_entropy(logits, targets, reduction="none")

"""The precision that losses are computed in."""

from __future__ import annotations

import torch
from jaxtyping import Num
from torch import Tensor


def at_least_float32(tensor: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
    """Half-precision outputs in float32; anything wider as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

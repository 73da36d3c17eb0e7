"""Attention of branches, and its gradient, for a text tower's pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from promptfuse.models.fast.attention import Before, Layout, attend
from promptfuse.models.fast.dense_attention import behind, dense_chances

Back = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""Gradients at queries, keys and values, from the one at what attention made of them; shapes as there."""


@torch.no_grad()
def attend_and_back(
    queries: Tensor, keys: Tensor, values: Tensor, known: Before, layout: Layout, only_last: bool
) -> tuple[Tensor, Back]:
    """``attend``, which says what the arguments are, and what gives its gradient."""
    if layout.mask is None:
        return _by_torch(queries, keys, values, known, layout, only_last)
    every, said = behind(known[0], keys), behind(known[1], values)
    mask = layout.mask[layout.last] if only_last else layout.mask
    asking = queries.transpose(0, 1)
    chances = dense_chances(asking, every, mask)
    mixed = chances @ said
    own = slice(every.shape[1] - len(keys), None)

    def back(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gradient = gradient.transpose(0, 1)
        scores = torch.ops.aten._softmax_backward_data(
            gradient @ said.transpose(1, 2), chances, -1, chances.dtype
        )
        at_keys = scores[:, :, own].transpose(1, 2) @ asking
        at_values = chances[:, :, own].transpose(1, 2) @ gradient
        return (scores @ every).transpose(0, 1), at_keys.transpose(0, 1), at_values.transpose(0, 1)

    return mixed.transpose(0, 1), back


def _by_torch(
    queries: Tensor, keys: Tensor, values: Tensor, known: Before, layout: Layout, only_last: bool
) -> tuple[Tensor, Back]:
    """The same by torch's own gradients; what is not kept until then is computed again."""

    def back(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            asking, own, said = (part.detach().requires_grad_(True) for part in (queries, keys, values))
            mixed = attend(asking, own, said, known, layout, only_last)
            at_queries, at_keys, at_values = torch.autograd.grad(mixed, (asking, own, said), gradient)
        return at_queries, at_keys, at_values

    return attend(queries, keys, values, known, layout, only_last), back

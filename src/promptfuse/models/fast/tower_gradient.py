"""The gradient at a text tower's input, by hand: its weights take none, and only the input's is wanted.

torch's own would run the same products, but every operation of theirs costs more to record and to call than
the small passes of a placeholder take to compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from promptfuse.models.fast.attention import Before, Layout
from promptfuse.models.fast.attention_gradient import attend_and_back
from promptfuse.models.fast.packed_blocks import PackedBlock

Back = Callable[[Tensor], Tensor]
"""The gradient at an input, from the one at the output."""


def read_and_differentiate(
    blocks: Sequence[PackedBlock], hidden: Tensor, known: Sequence[Before], layout: Layout
) -> Tensor:
    """Hidden states of branches' last tokens, (branches, d), differentiable with respect to the input.

    Args:
        blocks: the tower's layers.
        hidden: (tokens, d), the branches' new tokens.
        known: keys and values of what the branches go on from, for each layer.
        layout: which tokens belong together.
    """
    found: Tensor = _Pass.apply(hidden, blocks, known, layout)  # type: ignore[no-untyped-call]
    return found


class _Pass(torch.autograd.Function):
    """All layers."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, blocks: Sequence[PackedBlock], known: Sequence[Before], layout: Layout
    ) -> Tensor:
        ctx.backs = []
        for number, block in enumerate(blocks):
            last = layout.last if number == len(blocks) - 1 else None
            hidden, back = _attention(block, hidden, known[number], layout, last)
            hidden, back_inner = _feed_forward(block, hidden)
            ctx.backs += [back, back_inner]
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        for back in reversed(ctx.backs):
            gradient = back(gradient)
        return gradient, None, None, None


def _attention(
    block: PackedBlock,
    hidden: Tensor,
    known: Before,
    layout: Layout,
    last: Tensor | None,
) -> tuple[Tensor, Back]:
    """The first half of a layer, whose input is passed on only at the tokens ``last``; None for all."""
    normed, back_norm = block.norm.measured(hidden)
    mixed, back_attention = attend_and_back(*block.by_head(normed, last), known, layout, last is not None)

    def back(gradient: Tensor) -> Tensor:
        at_mixed = block.outward.back(gradient).view(mixed.shape)
        at_normed = block.by_head_back(*back_attention(at_mixed), last)
        return _spread(gradient, last, len(hidden)).add_(back_norm(at_normed))

    return block.outward(mixed.flatten(1), hidden if last is None else hidden[last]), back


def _spread(gradient: Tensor, last: Tensor | None, count: int) -> Tensor:
    """A gradient at the tokens ``last`` as one at all ``count`` of them; a copy."""
    if last is None:
        return gradient.clone()
    return gradient.new_zeros(count, gradient.shape[1]).index_copy_(0, last, gradient)


def _feed_forward(block: PackedBlock, hidden: Tensor) -> tuple[Tensor, Back]:
    """The second half of a layer."""
    normed, back_norm = block.inner_norm.measured(hidden)
    wide = block.first(normed)
    inner = functional.silu(wide) if block.swish else block.activation(wide)

    def back(gradient: Tensor) -> Tensor:
        at_wide = _activation_back(block, wide, block.second.back(gradient))
        return back_norm(block.first.back(at_wide)).add_(gradient)

    return block.second(inner, hidden), back


def _activation_back(block: PackedBlock, wide: Tensor, gradient: Tensor) -> Tensor:
    """The gradient at the activation's input."""
    found: Tensor
    if block.swish:
        found = torch.ops.aten.silu_backward(gradient, wide)
        return found
    with torch.enable_grad():
        moved = wide.detach().requires_grad_(True)
        (found,) = torch.autograd.grad(block.activation(moved), moved, gradient)
    return found

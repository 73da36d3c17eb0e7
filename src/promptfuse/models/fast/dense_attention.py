"""Attention of few tokens: one masked product over all of them, which is wasteful, but few operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from promptfuse.models.branches import KVPrefix
from promptfuse.models.fast.prefix import ragged_positions
from promptfuse.models.precision import at_least_float32

DENSE = {"cpu": 2**15}
"""Entries of a mask over all tokens up to which a masked product is faster than one branch by branch."""

DENSE_ELSEWHERE = 2**22
"""The same on other devices, where every operation costs a launch."""


def dense_mask(
    prefixes: Sequence[KVPrefix],
    owner: Int[Tensor, " tokens"],
    seen: Int[Tensor, " tokens"],
    branch: Int[Tensor, " tokens"],
    device: torch.device,
) -> Float[Tensor, "tokens _"] | None:
    """0 where a token sees another and -inf elsewhere; None where that would be large.

    Args:
        prefixes: what the branches go on from.
        owner: (tokens,) the number of each token's prefix.
        seen: (tokens,) how many of the prefix's tokens it sees.
        branch: (tokens,) its branch.
        device: where the mask is to be.
    """
    lengths = torch.tensor([len(prefix) for prefix in prefixes])
    if len(branch) * (int(lengths.sum()) + len(branch)) > DENSE.get(device.type, DENSE_ELSEWHERE):
        return None
    whose, place = (found.to(device) for found in ragged_positions(torch.zeros_like(lengths), lengths))
    owner, seen, branch = owner.to(device), seen.to(device), branch.to(device)
    before = (whose == owner[:, None]) & (place < seen[:, None])
    visible = torch.cat([before, (branch == branch[:, None]).tril()], 1)
    return torch.zeros(visible.shape, device=device).masked_fill_(~visible, -torch.inf)


def behind(
    before: Float[Tensor, "heads _ width"] | None, own: Float[Tensor, "tokens heads width"]
) -> Float[Tensor, "heads _ width"]:
    """Keys or values of the prefixes and, after them, of new tokens, (heads, all tokens, width).

    Args:
        before: (heads, the prefixes' tokens, width), or None.
        own: (tokens, heads, width).
    """
    own = own.transpose(0, 1)
    return own if before is None else torch.cat([before, own], 1)


def dense_chances(
    queries: Float[Tensor, "heads queries width"],
    keys: Float[Tensor, "heads tokens width"],
    mask: Float[Tensor, "queries tokens"],
) -> Float[Tensor, "heads queries tokens"]:
    """How much of each token a query takes, (heads, queries, tokens).

    Args:
        queries: (heads, queries, width).
        keys: (heads, tokens, width).
        mask: (queries, tokens), 0 where a query sees a token and -inf elsewhere.
    """
    if queries.dtype == mask.dtype:
        return torch.baddbmm(mask, queries, keys.transpose(1, 2)).softmax(-1)
    scores = at_least_float32(queries @ keys.transpose(1, 2)) + mask
    return scores.softmax(-1).to(queries.dtype)

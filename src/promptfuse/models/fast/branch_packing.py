"""Branches packed into rows: who is in which row, what each token sees, and the prefixes before them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from promptfuse.models.branches import KVPrefix
from promptfuse.models.fast.prefix import stack_keys


def pack(prefix_index: Sequence[int], lengths: Sequence[int], most: int) -> list[list[int]]:
    """Branches by row, those of one prefix, so that rows padded to the longest have little padding.

    Args:
        prefix_index: for each branch the number of its prefix.
        lengths: for each branch how many new tokens it has.
        most: tokens of a row; a single branch may have more. Rows of long branches may have twice as many.
    """
    rows = _filled(prefix_index, lengths, most)
    if max(lengths, default=0) <= most // 8:
        return rows  # Short branches fill rows by themselves.

    def padded(packed: list[list[int]]) -> int:
        return len(packed) * max(sum(lengths[index] for index in row) for row in packed)

    even = (_even(prefix_index, lengths, most + most * eighths // 8) for eighths in range(9))
    return min(rows, *even, key=padded)


def _filled(prefix_index: Sequence[int], lengths: Sequence[int], most: int) -> list[list[int]]:
    """One row after the other, shortest branches first, as many as a row takes."""
    rows: list[list[int]] = []
    filled: dict[int, tuple[list[int], int]] = {}
    for index in sorted(range(len(prefix_index)), key=lengths.__getitem__):
        row, tokens = filled.get(prefix_index[index], ([], most))
        if tokens + lengths[index] > most:
            row, tokens = [], 0
            rows.append(row)
        row.append(index)
        filled[prefix_index[index]] = row, tokens + lengths[index]
    return rows


def _even(prefix_index: Sequence[int], lengths: Sequence[int], most: int) -> list[list[int]]:
    """As few rows as tokens ask for, the longest branch first into the emptiest (Graham, 1969)."""
    rows: list[list[int]] = []
    for number in dict.fromkeys(prefix_index):
        own = [index for index, prefix in enumerate(prefix_index) if prefix == number]
        count = -(-sum(lengths[index] for index in own) // most)
        heap: list[tuple[int, int, list[int]]] = [(0, place, []) for place in range(count)]
        for index in sorted(own, key=lengths.__getitem__, reverse=True):
            tokens, place, row = heapq.heappop(heap)
            row.append(index)
            heapq.heappush(heap, (tokens + lengths[index], place, row))
        rows += [row for _, _, row in sorted(heap, key=lambda item: item[1]) if row]
    return rows


def tree_mask(
    owner: Int[Tensor, "rows columns"], prefix_length: Int[Tensor, " _"], longest: int, kind: torch.dtype
) -> Float[Tensor, "rows 1 columns {longest+owner.shape[1]}"]:
    """What is added to the attention of each token to its prefix and its row: 0 at what it sees.

    Args:
        owner: (rows, columns) each token's branch, -1 at padding.
        prefix_length: (branches + 1,) how many tokens of the prefix each sees, 0 at the end for the padding.
        longest: tokens of the longest prefix.
        kind: the type of the attention.

    Returns:
        (rows, 1, columns, longest + columns).
    """
    before = torch.arange(longest) < prefix_length[owner][..., None]
    together = (owner[:, :, None] == owner[:, None, :]).tril()
    visible = torch.cat([before, together], 2)
    mask = torch.zeros(visible.shape, dtype=kind)
    return mask.masked_fill_(~visible, torch.finfo(kind).min)[:, None]


def row_mask(
    owner: Int[Tensor, "rows columns"], prefix_length: Int[Tensor, " _"], longest: int
) -> Int[Tensor, "rows {longest+owner.shape[1]}"]:
    """Where a row of one branch and its prefix has tokens, (rows, longest + columns); see ``tree_mask``."""
    before = torch.arange(longest) < prefix_length[owner[:, :1]]
    return torch.cat([before, owner >= 0], 1).long()


def cache_behind(prefixes: Sequence[KVPrefix], rows: Sequence[int], longest: int, depth: int) -> Cache:
    """Keys and values of each row's prefix, as a cache that gives the new ones back.

    Args:
        prefixes: what is known.
        rows: for each row the number of its prefix.
        longest: tokens of the longest prefix.
        depth: layers of the model.
    """
    if not longest:
        return Cache(layers=[PrefixCacheLayer(None, None) for _ in range(depth)])
    some = next(prefix for prefix in prefixes if len(prefix))
    full = [prefix if len(prefix) else None for prefix in prefixes]
    in_order, one = list(rows) == list(range(len(prefixes))), len(prefixes) == 1
    layers = []
    for index in range(depth):
        sides = []
        for side in ("keys", "values"):
            like = getattr(some, side)[index]
            blank = like.new_empty(like.shape[0], 0, like.shape[2])
            tensors = [blank if prefix is None else getattr(prefix, side)[index] for prefix in full]
            stacked = stack_keys(tensors, longest)
            if not in_order:
                stacked = stacked.expand(len(rows), -1, -1, -1) if one else stacked[list(rows)]
            sides.append(stacked)
        layers.append(PrefixCacheLayer(*sides))
    return Cache(layers=layers)


class PrefixCacheLayer(DynamicLayer):  # type: ignore[misc]
    """One layer of a cache that appends new keys to known ones and keeps only the new ones.

    Args:
        keys: (rows, heads, known, width), or None if nothing is known.
        values: the same.
    """

    def __init__(self, keys: Tensor | None, values: Tensor | None) -> None:
        super().__init__()
        self.new: tuple[Tensor, Tensor] | None = None
        self.known = None if keys is None or values is None else (keys, values)
        if keys is not None:
            self.lazy_initialization(keys, values)
            self.keys, self.values = keys, values

    def update(
        self,
        key_states: Float[Tensor, "rows heads new width"],
        value_states: Float[Tensor, "rows heads new _"],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "rows heads tokens width"], Float[Tensor, "rows heads tokens _"]]:
        """Keys and values of all tokens, (rows, heads, tokens, width) each; the new ones are kept apart."""
        del args, kwargs
        self.new = key_states, value_states
        if self.known is None:
            return self.new
        return torch.cat([self.known[0], key_states], 2), torch.cat([self.known[1], value_states], 2)

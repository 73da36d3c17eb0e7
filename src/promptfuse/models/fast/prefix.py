"""The prefixes that a reader holds, and how those of several rows are put side by side."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from promptfuse.models.branches import EMPTY, KVPrefix


class PrefixCache:
    """The prefixes used last, by their tokens.

    Args:
        limit: bytes to hold.

    Attributes:
        nbytes: memory that the held prefixes take.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._held: OrderedDict[tuple[int, ...], KVPrefix] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def clear(self) -> None:
        """Forget all prefixes."""
        self._held.clear()
        self.nbytes = 0

    def longest(
        self, ids: tuple[int, ...], usable: Callable[[KVPrefix], bool] = lambda prefix: True
    ) -> KVPrefix:
        """The longest held beginning of a row, at most the whole row; ``EMPTY`` if there is none."""
        for length in range(len(ids), 0, -1):
            found = self._held.get(ids[:length])
            if found is not None and usable(found):
                self._held.move_to_end(found.ids)
                return found
        return EMPTY

    def hold(self, prefixes: Sequence[KVPrefix]) -> None:
        """Remember prefixes, and forget the oldest where there is no room."""
        for prefix in prefixes:
            old = self._held.pop(prefix.ids, None)
            self.nbytes += prefix.nbytes - (0 if old is None else old.nbytes)
            self._held[prefix.ids] = prefix
        while self.nbytes > self.limit:
            _, oldest = self._held.popitem(last=False)
            self.nbytes -= oldest.nbytes


def stack_keys(
    tensors: Iterable[Float[Tensor, "heads _ width"]], longest: int
) -> Float[Tensor, "prefixes heads {longest} width"]:
    """Keys or values of several prefixes, (prefixes, heads, longest, width), zero after the short ones."""
    listed = list(tensors)
    if len(listed) == 1:
        return listed[0][None]
    first = listed[0]
    found = first.new_zeros(len(listed), first.shape[0], longest, first.shape[2])
    for index, tensor in enumerate(listed):
        found[index, :, : tensor.shape[1]] = tensor
    return found


def ragged_positions(
    starts: Int[Tensor, " rows"], lengths: Int[Tensor, " rows"]
) -> tuple[Int[Tensor, " tokens"], Int[Tensor, " tokens"]]:
    """Row and position of every token of ragged rows that begin at ``starts``, both (tokens,)."""
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    first = lengths.cumsum(0) - lengths
    return rows, starts[rows] + torch.arange(len(rows), device=rows.device) - first[rows]

"""Keys and values of the first tokens of texts that grow at the end.

In a causal model a token depends only on those before it, so the candidates of a beam need the beam's
keys and values once, and then only their own new tokens. A *prefix* holds the former, a *branch* says
which row goes on from where.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half-precision outputs in float32; anything wider as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@dataclass(frozen=True)
class KVPrefix:
    """Keys and values of a row of tokens.

    Attributes:
        ids: the tokens.
        keys: for each layer (heads, len(ids), head width); one tensor where all layers are asked for at once.
        values: the same.
        following: (vocabulary,) log-probabilities of the next token, from a language model.
        nll: (len(ids) - 1,) NLL of the tokens behind the first, where somebody has asked for it.
    """

    ids: tuple[int, ...]
    keys: tuple[Tensor, ...] | Tensor = ()
    values: tuple[Tensor, ...] | Tensor = ()
    following: Tensor | None = None
    nll: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def nbytes(self) -> int:
        """Memory that it holds."""
        sides = [[side] if isinstance(side, Tensor) else side for side in (self.keys, self.values)]
        extra = [tensor for tensor in (self.following, self.nll) if tensor is not None]
        return sum(tensor.nbytes for tensor in (*sides[0], *sides[1], *extra))


EMPTY = KVPrefix(())
"""Nothing has been read yet."""


@dataclass(frozen=True)
class Branches:
    """Where the rows of a batch go on from.

    Attributes:
        prefixes: the rows' beginnings, each once.
        prefix_index: for each row the number of its prefix.
        prefix_length: for each row how many of the prefix's tokens it shares; less than its own length.
        embeddings: (rows, length, d) in place of the look-up, or None; those of shared tokens are not read.
    """

    prefixes: tuple[KVPrefix, ...]
    prefix_index: tuple[int, ...]
    prefix_length: tuple[int, ...]
    embeddings: Tensor | None = None

    def part(self, rows: Sequence[int]) -> Branches:
        """The branches of some of the rows, with the prefixes that those need."""
        used = {
            number: index
            for index, number in enumerate(dict.fromkeys(self.prefix_index[row] for row in rows))
        }
        return Branches(
            tuple(self.prefixes[number] for number in used),
            tuple(used[self.prefix_index[row]] for row in rows),
            tuple(self.prefix_length[row] for row in rows),
            None if self.embeddings is None else self.embeddings[list(rows)],
        )


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


def common_length(row: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows have in common at the front."""
    if row[: len(other)] == other:  # Most rows go on where the other ends.
        return len(other)
    for index, (own, its) in enumerate(zip(row, other, strict=False)):
        if own != its:
            return index
    return min(len(row), len(other))


def stack_keys(tensors: Iterable[Tensor], longest: int) -> Tensor:
    """Keys or values of several prefixes, (prefixes, heads, longest, width), zero behind the short ones."""
    listed = list(tensors)
    if len(listed) == 1:
        return listed[0][None]
    first = listed[0]
    found = first.new_zeros(len(listed), first.shape[0], longest, first.shape[2])
    for index, tensor in enumerate(listed):
        found[index, :, : tensor.shape[1]] = tensor
    return found


def ragged_positions(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Row and position of every token of ragged rows that begin at ``starts``, both (tokens,)."""
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    first = lengths.cumsum(0) - lengths
    return rows, starts[rows] + torch.arange(len(rows), device=rows.device) - first[rows]

"""Rows that go on from beginnings that have been read already.

In a causal model a token depends only on those before it, so the candidates of a beam need the beam's
keys and values once, and then only their own new tokens. A *prefix* holds the former, a *branch* says
which row goes on from where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class KVPrefix:
    """Keys and values of a row of tokens.

    Attributes:
        ids: the tokens.
        keys: for each layer (heads, len(ids), head width); one tensor where all layers are asked for at once.
        values: the same.
        following: (vocabulary,) log-probabilities of the next token, from a language model.
        nll: (len(ids) - 1,) NLL of the tokens after the first, where somebody has asked for it.
    """

    ids: tuple[int, ...]
    keys: tuple[Float[Tensor, "heads length width"], ...] | Float[Tensor, "layers heads length width"] = ()
    values: tuple[Float[Tensor, "heads length width"], ...] | Float[Tensor, "layers heads length width"] = ()
    following: Float[Tensor, " vocabulary"] | None = None
    nll: Float[Tensor, " _"] | None = None

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
    embeddings: Float[Tensor, "rows length d"] | None = None

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


def common_length(row: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows have in common at the front."""
    if row[: len(other)] == other:  # Most rows go on where the other ends.
        return len(other)
    for index, (own, its) in enumerate(zip(row, other, strict=False)):
        if own != its:
            return index
    return min(len(row), len(other))

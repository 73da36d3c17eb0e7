"""What every way of reading rows offers, and the plain way, which is right for any architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from promptfuse.models.batch import Batch
from promptfuse.models.branches import Branches, KVPrefix


class PrefixReader(Protocol):
    """Makes a model's outputs of rows, whose beginnings it may have read before.

    Attributes:
        name: what logs and results call it.
        longest: tokens of the longest row that may go on from a prefix; 0 if every row is read whole.
    """

    name: str
    longest: int

    def most_shared(self, row: Sequence[int]) -> int:
        """How many tokens of a row may come from a prefix: all but those whose outputs are asked for."""

    def prefixes(self, rows: Sequence[tuple[int, ...]]) -> list[KVPrefix]:
        """What rows of tokens came to, for ``Branches``; remembered for later calls."""

    def outputs(self, batch: Batch, branches: Branches | None) -> Float[Tensor, "rows *_"]:
        """The model's outputs, (rows, ...); differentiable.

        Args:
            batch: the rows.
            branches: where they go on from; None to read them whole.
        """

    def clear(self) -> None:
        """Forget what was read."""


class PlainReader:
    """A batched forward pass over whole rows.

    Args:
        read: gives a model's outputs of a batch.
    """

    name = "plain"
    longest = 0

    def __init__(self, read: Callable[[Batch], Float[Tensor, "rows *_"]]) -> None:
        self._read = read

    def most_shared(self, row: Sequence[int]) -> int:
        """None: there are no prefixes."""
        del row
        return 0

    def prefixes(self, rows: Sequence[tuple[int, ...]]) -> list[KVPrefix]:
        """The tokens alone."""
        return [KVPrefix(row) for row in rows]

    def outputs(self, batch: Batch, branches: Branches | None) -> Float[Tensor, "rows *_"]:
        """One pass over the whole rows, or several where rows would change each other."""
        del branches
        return self._read(batch)

    def clear(self) -> None:
        """Nothing is remembered."""

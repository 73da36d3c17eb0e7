"""Encoded texts, as models read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from promptfuse.models.fast.prefix import Branches


@dataclass(frozen=True)
class Batch:
    """Encoded texts, padded on the right.

    Attributes:
        ids: (rows, length) token ids, special tokens included.
        mask: (rows, length), 1 at tokens and 0 at padding.
        content: for each row, the half-open range of columns between the special tokens in front and
            those behind.
        open: (rows, length), true at placeholders, whose ids say nothing; None if there are none.
        branches: where the rows go on from, if their beginnings have been read already.
        given: the rows that the batch was made of, where they are still at hand.
    """

    ids: Tensor
    mask: Tensor
    content: tuple[tuple[int, int], ...]
    open: Tensor | None = None
    branches: Branches | None = None
    given: Sequence[Sequence[int]] | None = None

    @property
    def rows(self) -> Sequence[Sequence[int]]:
        """The token ids without padding."""
        if self.given is not None:
            return self.given
        lengths = self.mask.sum(1).tolist()
        return [row[:length] for row, length in zip(self.ids.tolist(), lengths, strict=True)]

    def part(self, rows: Sequence[int], length: int) -> Batch:
        """Some of the rows, of so many columns; read whole."""
        chosen, given = list(rows), self.rows
        return Batch(
            self.ids[chosen, :length],
            self.mask[chosen, :length],
            tuple(self.content[row] for row in chosen),
            None if self.open is None else self.open[chosen, :length],
            None,
            [given[row] for row in chosen],
        )

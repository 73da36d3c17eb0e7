"""Encoded texts, as models read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from promptfuse.models.branches import Branches

TokenLoss = Callable[[Tensor, Tensor], Tensor]
"""A loss of tokens, (tokens,), from their logits (tokens, vocabulary) and ids (tokens,)."""


@dataclass(frozen=True)
class Batch:
    """Encoded texts, padded on the right.

    Attributes:
        ids: (rows, length) token ids, special tokens included.
        mask: (rows, length), 1 at tokens and 0 at padding.
        text_spans: for each row, the half-open range of columns between the special tokens in front and
            those at the end.
        placeholder_mask: (rows, length), true at placeholders, whose ids mean nothing; None if there
            are none.
        branches: the beginnings of the rows that have been read already; None to read the rows whole.
        rows: the token ids without padding; made of the ids and the mask if left out.
        first_scored: for each row the first column whose output is asked for, where outputs come token by
            token; what stands before it may be wrong. None for all.
        token_loss: what a language model gives of each token in place of its NLL; needs ``first_scored``.
    """

    ids: Int[Tensor, "rows length"]
    mask: Num[Tensor, "rows length"]
    text_spans: tuple[tuple[int, int], ...]
    placeholder_mask: Bool[Tensor, "rows length"] | None = None
    branches: Branches | None = None
    rows: Sequence[Sequence[int]] = ()
    first_scored: Sequence[int] | None = None
    token_loss: TokenLoss | None = None

    def __post_init__(self) -> None:
        if not self.rows:
            lengths = self.mask.sum(1).tolist()
            rows = [row[:length] for row, length in zip(self.ids.tolist(), lengths, strict=True)]
            object.__setattr__(self, "rows", rows)

    @property
    def predicted(self) -> Float[Tensor, "rows {self.ids.shape[1]-1}"]:
        """Where a column but the first is a token that a model predicts, (rows, length - 1) of 0 and 1."""
        valid = self.mask[:, 1:].to(torch.float32)
        return valid if self.placeholder_mask is None else valid * ~self.placeholder_mask[:, 1:]

    def part(self, rows: Sequence[int], length: int) -> Batch:
        """Some of the rows, cut to ``length`` columns, to be read whole."""
        chosen, open_ = list(rows), self.placeholder_mask
        return Batch(
            self.ids[chosen, :length],
            self.mask[chosen, :length],
            tuple(self.text_spans[row] for row in chosen),
            None if open_ is None else open_[chosen, :length],
            None,
            [self.rows[row] for row in chosen],
            None,
            self.token_loss,
        )

"""Terms that read every text with each of several endings after it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any

from jaxtyping import Num
from torch import Tensor

from promptfuse.models import Model
from promptfuse.objectives.base import Term
from promptfuse.objectives.evaluator import Rows, tail_ids


class ContinuationTerm(Term):
    """A loss of what a model makes of a text followed by each of several endings.

    A row's ``Batch.text_spans`` is the range of its ending's tokens.

    Args:
        model: the frozen model that judges.
        endings: what is put after every text and its suffix, one at a time.
        weight: see ``Term``.
        prefix: see ``Term``.
        suffix: see ``Term``.
        name: see ``Term``.
    """

    def __init__(
        self, model: Model, endings: Sequence[str], weight: float, prefix: str, suffix: str, name: str
    ) -> None:
        super().__init__(model, weight, prefix, suffix, name)
        self.endings = list(endings)

    @abstractmethod
    def combine(self, outputs: Num[Tensor, "texts endings *_"]) -> Num[Tensor, " texts"]:
        """Losses, (texts,), from the outputs (texts, endings, ...)."""

    def loss_from_outputs(self, outputs: Num[Tensor, "rows *_"]) -> Num[Tensor, " texts"]:
        """Losses, (texts,), of rows in which the endings of a text follow each other."""
        return self.combine(outputs.reshape(-1, len(self.endings), *outputs.shape[1:]))

    @property
    def batch_key(self) -> Hashable:
        """Its own: other terms read no endings."""
        return id(self)

    @property
    def rows_per_text(self) -> int:
        """One row for each ending."""
        return len(self.endings)

    def describe(self) -> dict[str, Any]:
        """What decides the losses, in plain values."""
        return {**super().describe(), "endings": self.endings}

    def rows(self, texts: Sequence[str], cached: bool = False) -> Rows:
        """Token rows of texts, each with every ending, and the ranges of the endings' tokens.

        A row has the text's own tokens, then the ending's: those that it has after this very text, or,
        where a token would reach across the border, those that it has after a word.

        Raises:
            TextError: if a text with an ending is longer than the model takes.
        """
        del cached
        wrapped = [self.model_input(text) for text in texts]
        whole = [text + ending for text in wrapped for ending in self.endings]
        own, own_content = self.model.token_rows(wrapped)
        rows, content = self.model.token_rows(whole)
        for index, (row, (_, end)) in enumerate(zip(rows, content, strict=True)):
            text, (_, stop) = own[index // len(self.endings)], own_content[index // len(self.endings)]
            if row[:stop] != text[:stop]:
                ending = tail_ids(self.model, self.endings[index % len(self.endings)])
                rows[index], end = [*text[:stop], *ending, *text[stop:]], stop + len(ending)
            content[index] = (stop, end)
        self.model.check(whole, rows)
        return rows, content

    def tails(self) -> list[tuple[list[int], int | None]]:
        """The suffix and each ending, of which the ending counts."""
        suffix = tail_ids(self.model, self.suffix)
        found: list[tuple[list[int], int | None]] = []
        for ending in self.endings:
            tail = tail_ids(self.model, f"{self.suffix}{ending}")
            if tail[: len(suffix)] != suffix:
                tail = suffix + tail_ids(self.model, ending)
            found.append((tail, len(suffix)))
        return found

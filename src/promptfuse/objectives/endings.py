"""Terms that read every text with each of several endings behind it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from promptfuse.adapters import SlotGradient
from promptfuse.models import Batch, Model
from promptfuse.objectives.base import Term

Rows = tuple[list[list[int]], list[tuple[int, int]]]


class ContinuationTerm(Term):
    """A loss of what a model makes of a text followed by each of several endings.

    Args:
        model: the frozen model that judges.
        endings: what is put behind every text and its suffix, one at a time.
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
    def outputs(self, batch: Batch) -> Tensor:
        """What the model makes of each row, (rows, ...); differentiable.

        A row's ``content`` is the range of its ending's tokens.
        """

    @abstractmethod
    def combine(self, outputs: Tensor) -> Tensor:
        """Losses, (texts,), from the outputs (texts, endings, ...)."""

    def losses(self, batch: Batch) -> Tensor:
        """Losses, (texts,), from rows in which the endings of a text follow each other."""
        return self.combine(self._by_text(self.outputs(batch)))

    def _by_text(self, outputs: Tensor) -> Tensor:
        """(texts, endings, ...) of (rows, ...)."""
        return outputs.reshape(-1, len(self.endings), *outputs.shape[1:])

    def describe(self) -> dict[str, Any]:
        """See ``Term.describe``."""
        return {**super().describe(), "endings": self.endings}

    def rows(self, texts: Sequence[str]) -> Rows:
        """Token rows of texts, each with every ending, and the ranges of the endings' tokens.

        A row has the text's own tokens, then the ending's: those that it has behind this very text, or,
        where a token would reach across the border, those that it has behind a word.

        Raises:
            TextError: if a text with an ending is longer than the model takes.
        """
        wrapped = [self.model_input(text) for text in texts]
        whole = [text + ending for text in wrapped for ending in self.endings]
        own, own_content = self.model.token_rows(wrapped)
        rows, content = self.model.token_rows(whole)
        for index, (row, (_, end)) in enumerate(zip(rows, content, strict=True)):
            text, (_, stop) = own[index // len(self.endings)], own_content[index // len(self.endings)]
            if row[:stop] != text[:stop]:
                ending = self._tail_ids(self.endings[index % len(self.endings)])
                rows[index], end = [*text[:stop], *ending, *text[stop:]], stop + len(ending)
            content[index] = (stop, end)
        self.model.check(whole, rows)
        return rows, content

    def check(self, text: str) -> None:
        """See ``Term.check``."""
        self.rows([text])

    @torch.no_grad()
    def exact(self, text: str) -> float:
        """See ``Term.exact``; the model reads one ending at a time."""
        found = [
            self.outputs(self.model.collate([row], [content]))
            for row, content in zip(*self.rows([text]), strict=True)
        ]
        return self._finite(self.combine(torch.stack(found, dim=1)), [text]).item()

    @torch.no_grad()
    def score(
        self,
        texts: Sequence[str],
        batch_size: int | None = None,
        parents: Sequence[str] | None = None,
    ) -> Tensor:
        """See ``Term.score``."""
        if not texts:
            return torch.empty(0, device=self.model.device)
        rows, content = self.rows(texts)
        beginnings = None
        if parents is not None:
            beginnings = [row for row in self._beginnings(parents) for _ in self.endings]
        outputs = self._read(self.outputs, rows, content, beginnings, batch_size)
        return self._finite(self.combine(self._by_text(outputs)), texts)

    def slot_gradient(self, texts: Sequence[str], probe: Tensor, slots: int) -> SlotGradient:
        """See ``Term.slot_gradient``; a placeholder's gradient is the sum over the endings."""
        own, ranges = self.model.token_rows([self.unfinished_input(text) for text in texts])
        holder, suffix = self._holder_id(), self._tail_ids(self.suffix)
        tails = []
        for ending in self.endings:
            tail = self._tail_ids(f"{self.suffix}{ending}")
            tails.append(tail if tail[: len(suffix)] == suffix else suffix + self._tail_ids(ending))
        rows, content, places = [], [], []
        for row, (_, stop) in zip(own, ranges, strict=True):
            for length in range(1, slots + 1):
                for tail in tails:
                    rows.append([*row[:stop], *[holder] * length, *tail, *row[stop:]])
                    content.append((stop + length + len(suffix), stop + length + len(tail)))
                    places.append((stop, length))
        self.model.check([text for text in texts for _ in range(slots * len(tails))], rows)
        losses, found, probe = self._at_placeholders(self.model.collate(rows, content), places, probe)
        found = found.view(len(texts), slots, len(tails), slots, found.shape[-1]).sum(2)
        return SlotGradient(losses.view(len(texts), slots), found, probe)

"""Counts what a search asks of an encoder, keeps to a budget, and remembers the best text.

A query is one text that the encoder reads for the search: to score it, or for a gradient at it, once for
every row. A text that was scored before is not read again. What is read once for an encoder whatever is
searched for, such as a vocabulary, is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Num
from torch import Tensor

from promptfuse.adapters import SlotGradient
from promptfuse.models import Batch
from promptfuse.objectives import BlackBox, EmbeddingSimilarity, Term
from promptfuse.tasks.text_encoders import ModelEncoder, TextEncoder


class BudgetSpentError(Exception):
    """The search asked for more than the budget or the time allows; the best text so far is its result."""


class CurvePoint(NamedTuple):
    """A text that was better than all before it.

    Attributes:
        queries: how many texts the encoder had read.
        similarity: the cosine of the text and what is searched for.
        text: the text.
    """

    queries: int
    similarity: float
    text: str


class QueryMeter:
    """Counts queries against a budget.

    Args:
        budget: the most queries.
        seconds: the most wall time from now on; None for any.

    Attributes:
        queries: how many were made.
        curve: the texts that were better than all before them; the last one is the best.
        losses: of all texts that were scored.
    """

    def __init__(self, budget: int, seconds: float | None = None) -> None:
        self.budget = budget
        self.queries = 0
        self.curve: list[CurvePoint] = []
        self.losses: dict[str, float] = {}
        self._end = None if seconds is None else time.monotonic() + seconds

    def grant(self, count: int) -> int:
        """How many of some queries may be made.

        Raises:
            BudgetSpentError: if none may, since the budget or, once there is a text, the time is spent.
        """
        late = self._end is not None and bool(self.curve) and time.monotonic() >= self._end
        granted = 0 if late else min(count, self.budget - self.queries)
        if count and granted < 1:
            raise BudgetSpentError
        return granted

    def spend(self, count: int) -> None:
        """Count queries that are not those of whole texts, such as for gradients.

        Raises:
            BudgetSpentError: if not all of them may be made; then none is counted.
        """
        if self.grant(count) < count:
            raise BudgetSpentError
        self.queries += count

    def see(self, texts: Sequence[str], losses: Sequence[float]) -> None:
        """Count texts that were scored, and remember the best."""
        for text, loss in zip(texts, losses, strict=True):
            self.queries += 1
            self.losses[text] = loss
            if text.strip() and (not self.curve or 1 - loss > self.curve[-1].similarity):
                self.curve.append(CurvePoint(self.queries, 1 - loss, text))


class _Metered(Term):
    """A term whose questions to its encoder are counted."""

    meter: QueryMeter

    def exact(self, text: str) -> float:
        """The loss of a text, which is not read again if it was scored before."""
        if text not in self.meter.losses:
            self.meter.grant(1)
            self.meter.see([text], [super().exact(text)])
        return self.meter.losses[text]

    def score(
        self, texts: Sequence[str], batch_size: int | None = None, parents: Sequence[str] | None = None
    ) -> Num[Tensor, "{len(texts)}"]:
        """Losses of texts, (len(texts),), in float64; as many new ones are read as the budget has.

        Raises:
            BudgetSpentError: if it does not have enough; those that were read are remembered.
        """
        known = self.meter.losses
        fresh = {text: index for index, text in reversed(list(enumerate(texts))) if text not in known}
        chosen = sorted(fresh.values())
        granted = self.meter.grant(len(chosen))
        if kept := chosen[:granted]:
            read = [texts[index] for index in kept]
            after = None if parents is None else [parents[index] for index in kept]
            self.meter.see(read, super().score(read, batch_size, after).tolist())
        if granted < len(chosen):
            raise BudgetSpentError
        return torch.tensor([known[text] for text in texts], dtype=torch.float64)

    def outputs_of(self, texts: Sequence[str], parents: Sequence[str]) -> Num[Tensor, "rows *_"]:
        """What the model says of texts that grew from others; all of them are read.

        Raises:
            BudgetSpentError: if the budget does not have enough; those that were read are remembered.
        """
        granted = self.meter.grant(len(texts))
        found = super().outputs_of(texts[:granted], parents[:granted])
        self.meter.see(texts[:granted], self.loss_from_outputs(found).tolist())
        if granted < len(texts):
            raise BudgetSpentError
        return found

    def losses(self, batch: Batch) -> Num[Tensor, " texts"]:
        """Losses of encoded texts, for a gradient."""
        self.meter.spend(len(batch.rows))
        return super().losses(batch)

    def slot_gradient(
        self, texts: Sequence[str], probe: Float[Tensor, "{len(texts)} d"], slots: int
    ) -> SlotGradient:
        """Gradients at a placeholder for the next word of each text."""
        self.meter.spend(len(texts) * slots * self.rows_per_text)
        return super().slot_gradient(texts, probe, slots)


class _MeteredEmbedding(_Metered, EmbeddingSimilarity):
    """An encoder's term, metered."""


class _MeteredBlackBox(_Metered, BlackBox):
    """The term of an encoder without a gradient, metered."""


def metered_term(
    encoder: TextEncoder, vector: Float[Tensor, " d"], weight: float, meter: QueryMeter
) -> EmbeddingSimilarity | BlackBox:
    """One minus the cosine of texts and a vector, as a term that counts what it asks.

    Args:
        encoder: gives the vectors of texts.
        vector: the one that texts are to have, of length 1.
        weight: of the term.
        meter: counts, and stops a search that asks for more than it may.
    """
    if isinstance(encoder, ModelEncoder):
        term = _MeteredEmbedding(encoder.model, vector, weight)
        term.meter = meter
        return term

    def distance(texts: list[str]) -> Any:
        return (1 - encoder.features(texts) @ vector).tolist()

    box = _MeteredBlackBox(distance, weight, batched=True, name="embedding")
    box.meter = meter
    return box

"""Fluency: how likely a language model holds a text."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from promptfuse.errors import TextError
from promptfuse.models import Batch, CausalLM, Model
from promptfuse.objectives.base import Term
from promptfuse.objectives.checks import expect


class Fluency(Term):
    """Mean negative log-likelihood per token under a causal language model, in nats.

    The paper's fluency term (Williams & Kolter, 2024, section 4), with a gradient-free shortcut that
    the search uses: the NLL of one more token is known from the parent's next-token distribution.
    """

    def __init__(
        self, model: Model, weight: float = 1.0, *, prefix: str = "", suffix: str = "", name: str = "fluency"
    ) -> None:
        super().__init__(expect(model, "Fluency", CausalLM), weight, prefix, suffix, name)

    @property
    def lm(self) -> CausalLM:
        """The language model."""
        return cast(CausalLM, self.model)

    def losses(self, batch: Batch) -> Tensor:
        """Mean NLL per token, (rows,).

        Raises:
            TextError: if a text has no token that the model predicts.
        """
        total, count = self.lm.nll(batch)
        if not bool(count.all()):
            raise TextError(f"{self.model.name} predicts no token of an empty text; give at least one word")
        return total / count

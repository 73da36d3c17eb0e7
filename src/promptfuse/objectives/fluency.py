"""Fluency: how likely a language model holds a text."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from promptfuse.errors import ConfigError, TextError
from promptfuse.models import Batch, CausalLM, Model
from promptfuse.objectives.base import Term
from promptfuse.objectives.checks import expect

TYPICAL_LENGTH = 12
"""Tokens of a text whose fluency is its mean NLL per token whatever the length exponent."""


class Fluency(Term):
    """Negative log-likelihood under a causal language model, in nats: per token by default.

    The paper's fluency term (Williams & Kolter, 2024, section 4), with a gradient-free shortcut that
    the search uses: the NLL of one more token is known from the parent's next-token distribution.

    The mean per token favours long texts, whose last words follow nearly by themselves. As in machine
    translation (Wu et al., 2016, section 7) the sum can be divided by a smaller power of the length
    instead: the loss of n tokens is their summed NLL / (n^a 12^(1 - a)), so that a text of 12 tokens has
    the same loss for every exponent a.

    Args:
        model: a causal language model.
        weight: factor in the sum.
        length_exponent: a, from 0 (the sum, over 12) to 1 (the mean).
        prefix: put before every text that the model reads.
        suffix: put behind it.
        name: key in results.

    Raises:
        ConfigError: if the exponent is out of range.
        ModelError: if the model is no causal language model.
    """

    def __init__(
        self,
        model: Model,
        weight: float = 1.0,
        *,
        length_exponent: float = 1.0,
        prefix: str = "",
        suffix: str = "",
        name: str = "fluency",
    ) -> None:
        super().__init__(expect(model, "Fluency", CausalLM), weight, prefix, suffix, name)
        if not 0 <= length_exponent <= 1:
            raise ConfigError(f"length exponent: {length_exponent} is out of range; give 0 (sum) to 1 (mean)")
        self.length_exponent = length_exponent

    def describe(self) -> dict[str, Any]:
        """See ``Term.describe``."""
        return {**super().describe(), "length_exponent": self.length_exponent}

    def per_nat(self, tokens: Tensor) -> Tensor:
        """What one nat of a text's NLL adds to its loss, by the number of predicted tokens."""
        return tokens.pow(-self.length_exponent) * float(TYPICAL_LENGTH ** (self.length_exponent - 1))

    @property
    def lm(self) -> CausalLM:
        """The language model."""
        return cast(CausalLM, self.model)

    def losses(self, batch: Batch) -> Tensor:
        """NLL by length, (rows,).

        Raises:
            TextError: if a text has no token that the model predicts.
        """
        total, count = self.lm.nll(batch)
        if not bool(count.all()):
            raise TextError(f"{self.model.name} predicts no token of an empty text; give at least one word")
        return total * self.per_nat(count.to(total.dtype))

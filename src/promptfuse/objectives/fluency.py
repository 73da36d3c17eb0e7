"""Fluency: how likely a language model holds a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from promptfuse._utils.values import some_text
from promptfuse.errors import ConfigError, TextError
from promptfuse.models import Batch, CausalLM, Model
from promptfuse.models.precision import at_least_float32
from promptfuse.objectives.base import Term
from promptfuse.objectives.checks import check_unicode, require_model_kind
from promptfuse.objectives.registry import terms
from promptfuse.objectives.settings import OfKind, TextOrFile

TYPICAL_LENGTH = 12
"""Tokens of a text whose fluency is its mean NLL per token whatever the length exponent."""


@terms.register("Fluency")
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
        prefix: put directly before every text that the model reads. The loss is that of the text *given*
            the prefix, whose tokens are neither predicted nor counted.
        suffix: put after it; its tokens count as the text's do.
        name: key in results.
        context: as ``prefix``, but every text begins with a word of its own after it: a blank is put
            between where the context's end asks for one. Examples of the texts that are wanted, each on a
            line of its own, turn any language model into one of such texts; words are proposed after them.

    Raises:
        ConfigError: if the exponent is out of range, or there are both a prefix and a context.
        ModelError: if the model is no causal language model.
        TextError: if the prefix or context leaves no room for a text.
    """

    def __init__(
        self,
        model: Annotated[Model, OfKind(CausalLM)],
        weight: float = 1.0,
        *,
        length_exponent: Annotated[float, Field(ge=0, le=1)] = 1.0,
        prefix: str = "",
        suffix: str = "",
        name: str = "fluency",
        context: TextOrFile = "",
    ) -> None:
        lm = cast(CausalLM, require_model_kind(model, "Fluency", CausalLM))
        check_unicode(some_text(context, "context"), "context")
        self.check_settings(prefix, context)
        super().__init__(lm, weight, prefix, suffix, name)
        self.context = context
        self._lm = lm.behind(context or prefix, apart=bool(context))
        if not 0 <= length_exponent <= 1:
            raise ConfigError(f"length exponent: {length_exponent} must be from 0 (sum) to 1 (mean)")
        self.length_exponent = length_exponent

    @staticmethod
    def check_settings(prefix: str, context: str, **others: object) -> None:
        """Raise ``ConfigError`` if there are both a prefix and a context."""
        del others
        if prefix and context:
            raise ConfigError("a prefix and a context: only one of them can precede the text; combine them")

    def describe(self) -> dict[str, Any]:
        """What decides the losses, in plain values."""
        found = {**super().describe(), "length_exponent": self.length_exponent}
        return found | ({"context": self.context} if self.context else {}) | describe_start(self.lm)

    def wrap(self, text: str) -> str:
        """The string that the model reads for a text, the context included."""
        return f"{self.lm.joined(text)}{self.suffix}"

    def unfinished_input(self, text: str) -> str:
        """The text alone: the model reads the prefix or context before every text by itself."""
        return text

    def length_normalizer(self, tokens: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """What one nat of a text's NLL adds to its loss, by the number of predicted tokens."""
        return tokens.pow(-self.length_exponent) * float(TYPICAL_LENGTH ** (self.length_exponent - 1))

    @property
    def lm(self) -> CausalLM:
        """The language model, which reads every text after the prefix or context, and proposes words."""
        return self._lm

    @property
    def reading_model(self) -> CausalLM:
        """The language model that is given the texts; it reads the prefix or context by itself."""
        return self._lm

    def outputs(self, batch: Batch) -> Float[Tensor, " rows"]:
        """NLL by length, (rows,).

        Raises:
            TextError: if a text has no token that the model predicts.
        """
        start = self.lm.start_ids
        if len(start) > 1:  # Rows that were made without the context's borders have it all the same.
            content = [
                (max(first, len(start)) if tuple(row[: len(start)]) == start else first, stop)
                for row, (first, stop) in zip(batch.rows, batch.text_spans, strict=True)
            ]
            batch = replace(batch, text_spans=tuple(content))
        total, count = self.lm.content_nll(batch)
        if not bool(count.all()):
            raise TextError(f"{self.model.name} cannot score an empty text; give at least one word")
        return total * self.length_normalizer(count.to(total.dtype))

    @torch.no_grad()
    def label_gradient(self, row: Sequence[int], start: int) -> Float[Tensor, "{len(row)} vocabulary"]:
        """Minus the log-probability of every token in each column, as it counts in the fluency.

        Args:
            row: token ids of a text with what stands before it.
            start: the column where the text begins.

        Returns:
            (columns, rows of the table); zero in the first column, which nothing predicts.
        """
        batch = self.lm.collate([row], [(start, len(row))])
        logits = self.lm.call(batch).logits[0]
        found = -at_least_float32(logits).log_softmax(-1) * self.length_normalizer(
            logits.new_tensor(float(len(row) - max(start, 1)))
        )
        return torch.cat([torch.zeros_like(found[:1]), found[:-1]])


def describe_start(lm: CausalLM) -> dict[str, Any]:
    """What stands before every text of a language model, if that is not simply its begin-of-text token."""
    return {} if lm.start.usual else {"start": lm.shown_start}

"""A term of the objective: one loss of a text under one model."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

from jaxtyping import Float, Num
from torch import Tensor

from promptfuse._utils.values import some_text
from promptfuse.adapters import SlotGradient
from promptfuse.errors import ConfigError
from promptfuse.models import Batch, Model
from promptfuse.objectives import evaluator, gradients
from promptfuse.objectives.checks import check_unicode
from promptfuse.objectives.evaluator import Rows

MAX_WEIGHT = 1e6
"""Beyond it the other terms are lost in float32's rounding."""


def check_weight(weight: Any, name: str) -> None:
    """Raise ``ConfigError`` for a number that is no weight of a term."""
    if isinstance(weight, str) or not hasattr(weight, "__float__"):
        raise ConfigError(f"weight of {name}: {weight!r:.60} is not a number; give one other than zero")
    if not math.isfinite(weight) or weight == 0:
        raise ConfigError(f"weight of {name}: {weight} must be finite and not zero")
    if abs(weight) > MAX_WEIGHT:
        raise ConfigError(
            f"weight of {name}: {weight:g} is so large that no other term counts; give at most {MAX_WEIGHT:g}"
        )


class Term:
    """A loss for every text; lower is better.

    A subclass writes ``loss_from_outputs``: losses, (texts,), from what the model says of the texts,
    (texts, ...), which ``Model.outputs`` describes. All else is done here: how texts become batches, what
    is read once, gradients at words that are not chosen yet. A loss that needs the tokens themselves is
    written as ``outputs`` of a batch instead. The loss of a text must not depend on what else is in the
    batch, and it must be differentiable for methods that follow gradients.

        class Confidence(Term):
            "How sure a classifier is of any of its labels."

            def loss_from_outputs(self, outputs):
                return -outputs.max(dim=1).values

    Args:
        model: the frozen model that judges; None if none does.
        weight: factor in the objective's sum; any finite number but zero.
        prefix: put before every text.
        suffix: put after every text.
        name: the key under which results show the term.
    """

    def __init__(self, model: Model | None, weight: float, prefix: str, suffix: str, name: str) -> None:
        check_weight(weight, name)
        for value, what in ((prefix, "prefix"), (suffix, "suffix"), (name, "name")):
            check_unicode(some_text(value, f"{what} of {name}"), f"{what} of {name}")
        self._model = model
        self.weight = float(weight)
        self.prefix = prefix
        self.suffix = suffix
        self.name = name

    @property
    def model(self) -> Model:
        """The model that judges.

        Raises:
            ConfigError: if none does.
        """
        if self._model is None:
            raise ConfigError(f"the term {self.name} has no model; ask has_model first")
        return self._model

    @property
    def reading_model(self) -> Model:
        """What is given the texts: the model, which may read something before every text by itself."""
        return self.model

    @property
    def has_model(self) -> bool:
        """Whether a model judges."""
        return self._model is not None

    @property
    def has_gradient(self) -> bool:
        """Whether a ``slot_gradient`` says anything; a term without one only ranks finished texts."""
        return self.has_model and self.model.has_gradient

    @property
    def batch_key(self) -> Hashable:
        """Terms with equal keys make their losses from the same ``outputs``, so one pass serves them all."""
        return ("outputs", id(self.model)) if type(self).outputs is Term.outputs else id(self)

    def outputs(self, batch: Batch) -> Num[Tensor, "rows *_"]:
        """What the model says of encoded texts, (rows, ...); differentiable at the input embeddings."""
        return self.model.outputs(batch)

    def loss_from_outputs(self, outputs: Num[Tensor, "rows *_"]) -> Num[Tensor, "*_"]:
        """The losses, (texts,), that follow from ``outputs``; by default, the outputs are the losses."""
        return outputs

    def losses(self, batch: Batch) -> Num[Tensor, " texts"]:
        """Losses of encoded texts, (texts,); differentiable with respect to the input embeddings."""
        return self.loss_from_outputs(self.outputs(batch))

    def label_gradient(self, row: Sequence[int], start: int) -> Float[Tensor, "{len(row)} vocabulary"] | None:
        """The loss's gradient with respect to the one-hot tokens of a row in their role as what is predicted.

        Args:
            row: token ids of a text with what stands before it.
            start: the column where the text begins.

        Returns:
            (columns, rows of the table); None for terms that only read tokens.
        """
        del row, start
        return None

    def describe(self) -> dict[str, Any]:
        """What decides the losses, in plain values."""
        return {
            "kind": type(self).__name__,
            **({"model": self.model.identity} if self.has_model else {}),
            "weight": self.weight,
            "prefix": self.prefix,
            "suffix": self.suffix,
        }

    def wrap(self, text: str) -> str:
        """The string that the model reads for a text."""
        return f"{self.prefix}{text}{self.suffix}"

    def unfinished_input(self, text: str) -> str:
        """What ``reading_model`` is given for a text that may go on: ``model_input`` without the suffix."""
        return f"{self.prefix}{text}"

    def model_input(self, text: str) -> str:
        """What ``reading_model`` is given for a text: ``wrap``, but for what it reads before it by itself."""
        return f"{self.unfinished_input(text)}{self.suffix}"

    @property
    def rows_per_text(self) -> int:
        """Rows that the model reads for each text."""
        return 1

    def rows(self, texts: Sequence[str], cached: bool = False) -> Rows:
        """Token rows of texts, ``rows_per_text`` for each, and their ``Batch.text_spans``.

        Args:
            texts: the texts.
            cached: whether rows may be put together from those of earlier texts.

        Raises:
            TextError: if a text is longer than the model takes.
        """
        inputs = [self.model_input(text) for text in texts]
        # With a suffix no text is the beginning of another.
        if cached and not self.suffix:
            return self.reading_model.cached_rows(inputs)
        return self.reading_model.token_rows(inputs)

    def tails(self) -> list[tuple[list[int], int | None]]:
        """For each row of a text the tokens after the text.

        With each comes how many of these stand before the first that counts; None if the whole row counts.
        """
        return [(evaluator.tail_ids(self.model, self.suffix), None)]

    def check(self, text: str) -> None:
        """Raise a ``TextError`` if the model has no room for a text."""
        if self.has_model:
            self.rows([text])

    def exact(self, text: str) -> float:
        """The loss of one text by the book: a fresh encode, batches of one row, no cache.

        This defines the value of a text; every faster path is tested against it.

        Raises:
            TextError: if the text does not fit the model.
            ModelError: if the loss is not finite.
        """
        return evaluator.exact(self, text)

    def score(
        self,
        texts: Sequence[str],
        batch_size: int | None = None,
        parents: Sequence[str] | None = None,
    ) -> Num[Tensor, "{len(texts)}"]:
        """Losses of texts, (len(texts),), in the order given.

        Args:
            texts: the texts.
            batch_size: the most rows in one forward pass; None for as many as fit. It does not change the
                losses beyond rounding.
            parents: for each text the text that it grew from. What they have in common is then read once
                where the model is causal. None to read every text whole.

        Raises:
            TextError: if a text does not fit the model.
            ModelError: if a loss is not finite.
        """
        return evaluator.score(self, texts, batch_size, parents)

    def outputs_of(self, texts: Sequence[str], parents: Sequence[str]) -> Num[Tensor, "rows *_"]:
        """What the model says of texts that grew from others, (rows, ...); see ``outputs``."""
        return evaluator.outputs_of(self, texts, parents)

    def plain_outputs(self, texts: Sequence[str]) -> Float[Tensor, "{len(texts)} width"] | None:
        """What the model says of texts, (texts, width), if `loss_from_outputs` needs no more; else None.

        Raises:
            TextError: if a text is longer than the model takes.
        """
        if type(self).outputs is not Term.outputs or self.rows_per_text != 1 or self.model.logits_width:
            return None
        found = self.outputs_of(texts, texts)
        return found if found.dim() == 2 else None

    def slot_gradient(
        self, texts: Sequence[str], probe: Float[Tensor, "{len(texts)} d"], slots: int
    ) -> SlotGradient:
        """Gradients of the loss at a placeholder for the next word of each text.

        For every slot length m up to ``slots``, m placeholder tokens stand after the text (before
        the suffix and the closing special tokens), each with the embedding ``probe``. A row's
        gradient is its own: rows do not share the placeholder.

        Args:
            texts: the beams.
            probe: (beams, d), the placeholder's embedding for each beam.
            slots: the longest slot.

        Returns:
            Losses and gradients for each beam and slot length; see ``SlotGradient``.

        Raises:
            TextError: if a text with its slot is longer than the model takes.
        """
        return gradients.slot_gradient(self, texts, probe, slots)

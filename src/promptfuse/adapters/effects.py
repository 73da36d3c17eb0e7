"""A transport by measured effects: what each word did to B's outputs in a few other texts.

A gradient at B's input tells little of what a whole word does to a deep model. But the change that a word
makes to B's *outputs*, such as the features of a sentence, is much alike in different texts. It is measured
once for a pair of models. The estimate for a word is then the loss of the outputs of the text at hand, moved
by the word's effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from promptfuse.adapters.protocols import EmbeddingModel
from promptfuse.adapters.transports import Judge, LexicalTransport

Shape = Literal["unit", "log-probabilities", "plain"]


def shape_of(outputs: Float[Tensor, "texts width"]) -> Shape:
    """What all outputs have in common, (texts, width): length 1, or exponentials that add up to 1."""
    ones = outputs.new_ones(len(outputs))
    if torch.allclose(outputs.norm(dim=1), ones, atol=1e-3):
        return "unit"
    return "log-probabilities" if torch.allclose(outputs.logsumexp(1).exp(), ones, atol=1e-3) else "plain"


def moved(
    outputs: Float[Tensor, " width"], effects: Float[Tensor, "K width"], shape: Shape
) -> Float[Tensor, "K width"]:
    """Outputs, (width,), moved by effects, (K, width), and brought back to their shape."""
    found = outputs + effects
    if shape == "unit":
        return functional.normalize(found, dim=1)
    return found.log_softmax(1) if shape == "log-probabilities" else found


class EffectTransport(LexicalTransport):
    """Estimates the loss of a text with a word by the word's mean effect on B's outputs elsewhere.

    For a text with outputs f and a word with effect e the estimate is the loss of f + e, scaled to length 1
    where B gives unit features, normalised where it gives log-probabilities. It takes one forward pass a
    text and no gradient. A term whose loss does not follow from such outputs is estimated as by
    `LexicalTransport`, and so is all that asks for a gradient.

    Args:
        effects: (K, width), for the K words of `tokens`; nan where not measured.
        shape: what `shape_of` says of B's outputs.
        model_a: the model whose tokens are proposed.
        model_b: the model whose loss is estimated.
        max_subtokens: the longest slot, for gradients.
    """

    overshoots = False

    def __init__(
        self,
        effects: Float[Tensor, "K width"],
        shape: Shape,
        model_a: EmbeddingModel,
        model_b: EmbeddingModel,
        max_subtokens: int = 3,
    ) -> None:
        super().__init__(model_a, model_b, max_subtokens)
        self.effects = effects.to(model_b.embedding_table.device)
        self.shape = shape

    def losses(
        self, judge: Judge, texts: Sequence[str], probabilities: Float[Tensor, "beams rows"]
    ) -> Float[Tensor, "beams rows"]:
        """Estimated losses if an A-token is appended to each text, (beams, rows of A's table)."""
        outputs = judge.plain_outputs(texts)
        if outputs is None or outputs.shape[1:] != self.effects.shape[1:]:
            return super().losses(judge, texts, probabilities)
        found = [judge.loss_from_outputs(moved(row, self.effects.to(row), self.shape)) for row in outputs]
        return self._spread(torch.stack(found).float())

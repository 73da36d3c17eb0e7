"""What each word does to a model's outputs when it is appended to a few texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.errors import ModelError
from promptfuse.models import Model
from promptfuse.objectives.evaluator import read_rows

CONTEXTS = ("The man is looking at the", "She told them about her")
"""Beginnings of sentences that most words can continue."""

_PART = 4096


@torch.no_grad()
def measure_effects(
    model: Model,
    words: Sequence[str],
    contexts: Sequence[str] = CONTEXTS,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Float[Tensor, "{len(words)} width"], Float[Tensor, "{len(contexts)} width"]]:
    """The mean change of a model's outputs when a word is appended to texts.

    One forward pass for each word and text.

    Args:
        model: gives one row of numbers a text: a sentence encoder, an image-text model or a classifier.
        words: with their blanks, such as ``" dog"``.
        contexts: the texts.
        progress: called with the rows done and the rows in all.

    Returns:
        (words, width), nan for words that the model has no room for; and the outputs of the texts alone.

    Raises:
        ModelError: if the model gives no such row.
    """
    if model.logits_width:
        raise ModelError(
            f"{model.name} is a {model.kind} model, whose outputs are no features of a text; "
            "use another transport"
        )
    (alone, _), total = read_texts_that_fit(model, list(contexts), None), None
    for number, (context, row) in enumerate(zip(contexts, alone, strict=True)):
        (beginning,) = model.unterminated_rows([context])
        parts = []
        for first in range(0, len(words), _PART):
            texts = [context + word for word in words[first : first + _PART]]
            found, fits = read_texts_that_fit(model, texts, beginning)
            whole = found.new_full((len(texts), found.shape[1]), torch.nan)
            whole[fits] = found - row
            parts.append(whole)
            if progress is not None:
                progress(number * len(words) + first + len(texts), len(contexts) * len(words))
        total = torch.cat(parts) + (0 if total is None else total)
    assert total is not None
    return total / len(contexts), alone


def read_texts_that_fit(
    model: Model, texts: list[str], beginning: list[int] | None
) -> tuple[Tensor, list[int]]:
    """Outputs of the texts that fit, and which these are."""
    rows, spans = model.encode_rows(texts)
    fits = [index for index, row in enumerate(rows) if len(row) <= model.max_length]
    kept = ([rows[index] for index in fits], [spans[index] for index in fits])
    beginnings = None if beginning is None else [beginning] * len(fits)
    found = read_rows(model, model.outputs, kept, beginnings, None)
    if found.dim() != 2:
        raise ModelError(f"{model.name}: its outputs are no rows of features; use another transport")
    return found.float(), fits

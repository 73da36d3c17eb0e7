"""Gradients of terms at the tokens of a whole text, and how the tokens of two models correspond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from promptfuse.models import CausalLM, Model
from promptfuse.models.base import at_least_float32
from promptfuse.objectives import Fluency, Term
from promptfuse.objectives.endings import ContinuationTerm

Spans = Sequence[tuple[int, int]]
"""For each token the half-open range of characters that it covers."""


@dataclass(frozen=True)
class TextGradient:
    """Gradient of a term's loss at its model's input embeddings of one text.

    Attributes:
        ids: (tokens,), the text's own tokens: without special tokens, the term's prefix and suffix.
        spans: where they lie in the text; what reaches into the prefix or suffix is cut off there.
        gradient: (tokens, d).
        labels: (tokens, rows of the table), the loss's gradient with respect to the one-hot tokens in
            their role as what is predicted; only a fluency term has it, for others None.
    """

    ids: Tensor
    spans: Spans
    gradient: Tensor
    labels: Tensor | None


def text_gradient(term: Term, text: str) -> TextGradient:
    """The gradient of a term's loss at the tokens of a text; one text a time, so that it is its own.

    Raises:
        TextError: if the text does not fit the model.
    """
    model = term.reading_model
    wrapped = term.model_input(text)
    (row,), ((start, stop),) = model.token_rows([wrapped])
    rows, content = term.rows([text]) if isinstance(term, ContinuationTerm) else ([row], [(start, stop)])
    batch = model.collate(rows, content)
    with torch.no_grad():
        embeddings = model.embed(batch.ids).clone()
    embeddings.requires_grad_(True)
    # A model that gives none may refuse to be asked for one.
    with torch.set_grad_enabled(model.has_gradient), model.embeddings_from(embeddings):
        losses = term.losses(batch)
        gradient = torch.zeros_like(embeddings)
        if losses.requires_grad:
            (found,) = torch.autograd.grad(losses.sum(), embeddings, allow_unused=True)
            gradient = gradient if found is None else found
    if not bool(gradient.any()):
        model.warn_of_zero_gradient()
    # The endings' rows begin alike: what they say of a token of the text adds up.
    gradient = at_least_float32(gradient).sum(0)
    spans = _spans(model, wrapped, stop - start)
    first = len(term.unfinished_input(""))
    last = first + len(text)
    inside = [
        index for index, (begin, end) in enumerate(spans) if begin < last and end > first and end > begin
    ]
    if not inside:
        inside = list(range(len(spans)))
    columns = torch.tensor(inside) + start
    labels = None
    if isinstance(term, Fluency):
        labels = _label_gradient(term, row, start)[columns.to(model.device)]
    return TextGradient(
        ids=torch.tensor(row)[columns],
        spans=[(max(spans[k][0], first) - first, min(spans[k][1], last) - first) for k in inside],
        gradient=gradient[columns.to(gradient.device)].cpu(),
        labels=None if labels is None else labels.cpu(),
    )


@torch.no_grad()
def _label_gradient(term: Fluency, row: Sequence[int], start: int) -> Tensor:
    """Minus the log-probability of every token in each column, as it counts in the fluency.

    Args:
        term: the fluency.
        row: a text with what stands before it.
        start: where the text begins.

    Returns:
        (columns, rows of the table); zero in the first column, which nothing predicts.
    """
    batch = term.lm.collate([row], [(start, len(row))])
    logits = term.lm.call(batch).logits[0]
    found = -at_least_float32(logits).log_softmax(-1) * term.length_normalizer(
        logits.new_tensor(float(len(row) - max(start, 1)))
    )
    return torch.cat([torch.zeros_like(found[:1]), found[:-1]])


def _spans(model: Model, text: str, count: int) -> Spans:
    if isinstance(model, CausalLM):
        spans = model.spans(text)
    else:
        encoded = model.tokenizer(
            [text], add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )
        spans = encoded["offset_mapping"][0]
    # A tokenizer that makes other tokens without its special ones gives no spans to go by: one for all.
    return spans if len(spans) == count else [(0, len(text))] * count


def common_segments(text: str, first: Spans, second: Spans) -> list[tuple[range, range]]:
    """The tokens of two models that cover the same words.

    Args:
        text: the text.
        first: spans of one model's tokens.
        second: spans of the other's.

    Returns:
        For each segment (see ``segment_text``) the indices of its tokens in both; either may be empty.
    """
    borders = [at for at in range(1, len(text)) if text[at].isspace() and not text[at - 1].isspace()]
    cuts = [(0, 0)]
    for border in borders:
        a, b = _cut(first, border), _cut(second, border)
        if a is not None and b is not None:
            cuts.append((a, b))
    cuts.append((len(first), len(second)))
    return [(range(a, c), range(b, d)) for (a, b), (c, d) in pairwise(cuts)]


def _cut(spans: Spans, border: int) -> int | None:
    """Index of the first token behind a border; None if a token reaches across it."""
    index = next((k for k, (start, _) in enumerate(spans) if start >= border), len(spans))
    if any(end > border for _, end in spans[:index]) or any(start < border for start, _ in spans[index:]):
        return None
    return index

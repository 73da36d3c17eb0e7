"""Gradients of terms: at a placeholder for the next word, and at the tokens of a whole text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from promptfuse._utils.batched_calls import batched_call
from promptfuse.adapters import SlotGradient
from promptfuse.models import Batch, CausalLM, Model
from promptfuse.models.precision import at_least_float32
from promptfuse.objectives.evaluator import Rows

if TYPE_CHECKING:
    from promptfuse.objectives.base import Term

Spans = Sequence[tuple[int, int]]
"""For each token the half-open range of characters that it covers."""


@dataclass(frozen=True)
class _Slots:
    """What one term's slot gradients are asked of, maybe together with others; see ``Term.slot_gradient``."""

    term: Term
    texts: Sequence[str]
    probe: Float[Tensor, "beams d"]


def slot_gradient(
    term: Term, texts: Sequence[str], probe: Float[Tensor, "{len(texts)} d"], slots: int
) -> SlotGradient:
    """Gradients of the loss at a placeholder for the next word of each text; see ``Term.slot_gradient``."""
    joint = partial(_slots_of_several, slots=slots)
    return batched_call(("slot", term.batch_key, slots), _Slots(term, texts, probe), joint)


def _slots_of_several(asked: Sequence[_Slots], slots: int) -> list[SlotGradient]:
    """Slot gradients of terms with one ``batch_key``, in one go."""
    rows: list[list[int]] = []
    spans: list[tuple[int, int]] = []
    places: list[tuple[int, int]] = []
    for one in asked:
        (more, ranges), where = placeholder_rows(one.term, one.texts, slots)
        rows += more
        spans += ranges
        places += where
    first, each = asked[0].term, asked[0].term.rows_per_text
    counts = [len(one.texts) for one in asked]

    def losses_of(batch: Batch) -> Num[Tensor, " texts"]:
        parts = torch.split(first.outputs(batch), [slots * count * each for count in counts])
        return torch.cat([one.term.loss_from_outputs(part) for one, part in zip(asked, parts, strict=True)])

    batch = first.model.collate(rows, spans)
    probes = torch.cat([one.probe for one in asked])
    losses, gradient, probes = _at_placeholders(first.model, batch, places, probes, losses_of)
    if each > 1:  # The rows of a text share its placeholder.
        gradient = gradient.view(-1, each, *gradient.shape[1:]).sum(1)
    parts = (
        torch.split(losses.view(-1, slots), counts),
        torch.split(gradient.view(-1, slots, slots, gradient.shape[-1]), counts),
        torch.split(probes, counts),
    )
    return [SlotGradient(*part) for part in zip(*parts, strict=True)]


def placeholder_rows(term: Term, texts: Sequence[str], slots: int) -> tuple[Rows, list[tuple[int, int]]]:
    """Rows of texts with placeholders for their next word.

    Args:
        term: whose texts they are.
        texts: the texts.
        slots: the most placeholders of a row.

    Returns:
        For each text, each number of placeholders and each of the term's tails a row and its span; and for
        each row the column of its first placeholder and how many there are.

    Raises:
        TextError: if a row is longer than the model takes.
    """
    model, tails = term.model, term.tails()
    own, ranges = term.reading_model.cached_rows([term.unfinished_input(text) for text in texts])
    holder = _holder_id(model)
    rows, spans, places = [], [], []
    for row, (start, stop) in zip(own, ranges, strict=True):
        for length in range(1, slots + 1):
            for tail, scored in tails:
                rows.append([*row[:stop], *[holder] * length, *tail, *row[stop:]])
                begin = start if scored is None else stop + length + scored
                spans.append((begin, stop + length + len(tail)))
                places.append((stop, length))
    # A slot that no longer fits is no slot: the row is refused like any other text that is too long.
    model.check([text for text in texts for _ in range(slots * len(tails))], rows)
    return (rows, spans), places


def _holder_id(model: Model) -> int:
    """An id for the placeholder.

    It is never looked up, its embedding is replaced; but models find the end of a text and its positions by
    special ids.
    """
    special = {*model.tokenizer.all_special_ids, model.pad_id}
    return next(index for index in range(len(model.embedding_table)) if index not in special)


def _at_placeholders(
    model: Model,
    batch: Batch,
    places: Sequence[tuple[int, int]],
    probe: Float[Tensor, "beams d"],
    losses_of: Callable[[Batch], Num[Tensor, " texts"]],
) -> tuple[Num[Tensor, " texts"], Float[Tensor, "{len(places)} slots d"], Float[Tensor, "beams d"]]:
    """Losses, and gradients at the placeholders.

    Args:
        model: the model that reads the rows.
        batch: the rows with their placeholders, as many for each probe.
        places: for each row the column of its first placeholder, and how many there are.
        probe: (probes, d).
        losses_of: the losses of a batch.

    Returns:
        The losses; (rows, longest slot, d), zero after a row's own placeholders; and the probe as the model
        read it.
    """
    first, length = torch.tensor(places, device=batch.ids.device).unbind(1)
    column = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    slot = (column >= first[:, None]) & (column < (first + length)[:, None])
    batch = replace(batch, placeholder_mask=slot)
    with torch.no_grad():
        embeddings = model.embed(batch.ids)
    # What stands in the slot is what the linear estimate starts from, rounding included.
    probe = probe.to(embeddings)
    each = probe.repeat_interleave(len(places) // len(probe), 0)
    embeddings = torch.where(slot[..., None], each[:, None], embeddings)
    embeddings.requires_grad_(True)
    rows = batch.rows
    # Nothing before the placeholder depends on it, so a causal model need not read that again.
    beginnings = [row[:start] for row, (start, _) in zip(rows, places, strict=True)]
    branches = model.match_prefixes(rows, beginnings)
    # A model that gives none may refuse to be asked for one.
    with torch.set_grad_enabled(model.has_gradient):
        if branches is None:
            with model.embeddings_from(embeddings):
                losses = losses_of(batch)
        else:
            losses = losses_of(replace(batch, branches=replace(branches, embeddings=embeddings)))
        gradient = torch.zeros_like(embeddings)
        if losses.requires_grad:  # A language model predicts nothing after a slot that ends the row.
            (own,) = torch.autograd.grad(losses.sum(), embeddings, allow_unused=True)
            gradient = gradient if own is None else own
    if not model.logits_width and not bool(gradient.any()):
        model.warn_of_zero_gradient()
    gradient = at_least_float32(gradient)
    found = gradient.new_zeros(len(places), int(length.max()), gradient.shape[-1])
    found[column[: found.shape[1]] < length[:, None]] = gradient[slot]
    return losses.detach(), found, at_least_float32(probe)


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

    ids: Int[Tensor, " tokens"]
    spans: Spans
    gradient: Float[Tensor, "tokens d"]
    labels: Float[Tensor, "tokens vocabulary"] | None


def text_gradient(term: Term, text: str) -> TextGradient:
    """The gradient of a term's loss at the tokens of a text; one text a time, so that it is its own.

    Raises:
        TextError: if the text does not fit the model.
    """
    model = term.reading_model
    wrapped = term.model_input(text)
    (row,), ((start, stop),) = model.token_rows([wrapped])
    batch = model.collate(*term.rows([text]))
    with torch.no_grad():
        embeddings = model.embed(batch.ids).clone()
    embeddings.requires_grad_(True)
    # What stands before the text does not depend on it, so a causal model need not read that again.
    branches = model.match_prefixes(batch.rows, [row[:start]] * len(batch.rows))
    # A model that gives none may refuse to be asked for one.
    with torch.set_grad_enabled(model.has_gradient):
        if branches is None:
            with model.embeddings_from(embeddings):
                losses = term.losses(batch)
        else:
            losses = term.losses(replace(batch, branches=replace(branches, embeddings=embeddings)))
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
    labels = term.label_gradient(row, start)
    if labels is not None:
        labels = labels[columns.to(model.device)]
    return TextGradient(
        ids=torch.tensor(row)[columns],
        spans=[(max(spans[k][0], first) - first, min(spans[k][1], last) - first) for k in inside],
        gradient=gradient[columns.to(gradient.device)].cpu(),
        labels=None if labels is None else labels.cpu(),
    )


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
    """Index of the first token after a border; None if a token reaches across it."""
    index = next((k for k, (start, _) in enumerate(spans) if start >= border), len(spans))
    if any(end > border for _, end in spans[:index]) or any(start < border for start, _ in spans[index:]):
        return None
    return index

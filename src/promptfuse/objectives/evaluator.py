"""Losses of texts under a term: rows in batches that fit, from known beginnings where there are any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Num
from torch import Tensor

from promptfuse._utils.batched_calls import batched_call
from promptfuse.errors import ConfigError, ModelError
from promptfuse.models import Batch, Model
from promptfuse.models.batching import cut, cut_branches, run_halving, token_budget
from promptfuse.objectives.checks import check_texts

if TYPE_CHECKING:
    from promptfuse.objectives.base import Term

Rows = tuple[list[list[int]], list[tuple[int, int]]]
"""Rows of token ids, and for each what ``Batch.text_spans`` says."""


@torch.no_grad()
def exact(term: Term, text: str) -> float:
    """The loss of one text by the book: a fresh encode, batches of one row, no cache.

    Raises:
        ModelError: if it is not finite.
    """
    rows = zip(*term.rows([text]), strict=True)
    outputs = [term.outputs(term.model.collate([row], [span])) for row, span in rows]
    return check_losses(term, term.loss_from_outputs(torch.cat(outputs)), [text]).item()


@torch.no_grad()
def score(
    term: Term, texts: Sequence[str], batch_size: int | None = None, parents: Sequence[str] | None = None
) -> Num[Tensor, "{len(texts)}"]:
    """Losses of texts, (len(texts),), in the order given; see ``Term.score``."""
    check_texts(texts)
    if not texts:
        return torch.empty(0, device=term.model.device)
    key = ("score", term.batch_key, batch_size, parents is None)
    joint = partial(_score_several, batch_size=batch_size)
    return check_losses(term, batched_call(key, _Texts(term, texts, parents), joint), texts)


@torch.no_grad()
def outputs_of(term: Term, texts: Sequence[str], parents: Sequence[str]) -> Num[Tensor, "rows *_"]:
    """The outputs of texts that grew from others, (rows, ...); see ``Term.outputs``."""
    return read_rows(term.model, term.outputs, term.rows(texts), _beginnings(term, parents), None)


def check_losses(term: Term, losses: Num[Tensor, "*_"], texts: Sequence[str]) -> Num[Tensor, "{len(texts)}"]:
    """The losses, if there is a finite one for each text.

    Raises:
        ConfigError: if the term gives another number of losses.
        ModelError: if one is not finite.
    """
    if losses.shape != (len(texts),):
        raise ConfigError(
            f"the term {term.name} gives losses of shape {tuple(losses.shape)} for {len(texts)} texts; "
            "return one loss for each text from loss_from_outputs"
        )
    if not bool(torch.isfinite(losses).all()):
        text = texts[int((~torch.isfinite(losses)).nonzero()[0, 0])]
        raise ModelError(f"{term.model.name}: the loss of {text!r} is not finite; load it in float32")
    return losses


@dataclass(frozen=True)
class _Texts:
    """What one term is to score, maybe together with others; see ``Term.score``."""

    term: Term
    texts: Sequence[str]
    parents: Sequence[str] | None


@torch.no_grad()
def _score_several(asked: Sequence[_Texts], batch_size: int | None) -> list[Num[Tensor, "*_"]]:
    """Losses of the texts of terms with one ``batch_key``, in one go."""
    rows: list[list[int]] = []
    spans: list[tuple[int, int]] = []
    beginnings: list[list[int]] = []
    counts = []
    for one in asked:
        more, ranges = one.term.rows(one.texts, cached=True)
        rows += more
        spans += ranges
        counts.append(len(more))
        beginnings += [] if one.parents is None else _beginnings(one.term, one.parents)
    first = asked[0]
    known = None if first.parents is None else beginnings
    outputs = read_rows(first.term.model, first.term.outputs, (rows, spans), known, batch_size)
    parts = torch.split(outputs, counts)
    return [one.term.loss_from_outputs(part) for one, part in zip(asked, parts, strict=True)]


def _beginnings(term: Term, texts: Sequence[str]) -> list[list[int]]:
    """For each row of texts the tokens of its beginning, without the suffix and what closes a row."""
    distinct = list(dict.fromkeys(texts))
    found = term.reading_model.unterminated_rows([term.unfinished_input(text) for text in distinct])
    by_text = dict(zip(distinct, found, strict=True))
    return [by_text[text] for text in texts for _ in range(term.rows_per_text)]


def read_rows(
    model: Model,
    outputs: Callable[[Batch], Num[Tensor, "rows *_"]],
    rows_and_spans: Rows,
    beginnings: Sequence[Sequence[int]] | None,
    batch_size: int | None,
) -> Num[Tensor, "{len(rows_and_spans[0])} *_"]:
    """Outputs of rows, (rows, ...) in the order given, in batches that fit.

    Args:
        model: the model that reads them.
        outputs: what to make of a batch.
        rows_and_spans: the rows and their spans.
        beginnings: for each row one that it may begin like, and that is then read once; None to read
            every row whole.
        batch_size: the most rows in a batch; None for as many as fit.
    """
    rows, spans = rows_and_spans
    branches = None if beginnings is None else model.match_prefixes(rows, beginnings)
    budget = token_budget(model.device, model.bytes_per_token)
    if branches is None:
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        ends = cut([len(rows[index]) for index in order], budget, batch_size)
    else:
        index_of, known = branches.prefix_index, branches.prefix_length
        fresh = [len(row) - length - model.n_unscored for row, length in zip(rows, known, strict=True)]
        order = sorted(range(len(rows)), key=lambda index: (index_of[index], fresh[index]))
        ends = cut_branches(
            [fresh[index] for index in order], [index_of[index] for index in order], budget, batch_size
        )

    def run(start: int, stop: int) -> Num[Tensor, "{stop-start} *_"]:
        part = order[start:stop]
        batch = model.collate([rows[index] for index in part], [spans[index] for index in part])
        if branches is not None:
            batch = replace(batch, branches=branches.part(part))
        with model.fast_products() if branches is None else nullcontext():
            return outputs(batch)

    found: list[Tensor] = []
    start = 0
    for stop in ends:
        found += run_halving(run, start, stop)
        start = stop
    place = torch.tensor(order, device=model.device).argsort()
    return torch.cat(found)[place]


def tail_ids(model: Model, tail: str) -> list[int]:
    """Tokens of what stands right after a word, such as a suffix."""
    if not tail:
        return []
    word = "word"  # Alone, the tail might get the blank of a word's beginning (SentencePiece).
    alone, both = model.tokenizer([word, f"{word}{tail}"], add_special_tokens=False)["input_ids"]
    if both[: len(alone)] == alone:
        return list(both[len(alone) :])
    return list(model.tokenizer(tail, add_special_tokens=False)["input_ids"])

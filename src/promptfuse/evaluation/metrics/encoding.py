"""Captions through a model in batches: rows of like length together, long ones cut."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from promptfuse.models import Batch, Model

BATCH = 64
"""Rows that go through a model together."""


def read_in_batches(
    model: Model,
    texts: Sequence[str],
    read: Callable[[Batch], Tensor],
    batch_size: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, list[int]]:
    """What a model gives for each text, and which of them it could not read whole.

    A text that is longer than the model takes is cut at its end and keeps its special tokens;
    judges such as CLIPScore's read captions so.

    Args:
        model: what reads.
        texts: none of them without tokens where the model needs one.
        read: from a batch to numbers, (rows, ...).
        batch_size: rows at a time; results agree to rounding for any.
        progress: is told how many texts are read, and of how many.

    Returns:
        (texts, ...) in float64 on the CPU, and the indices of those that were cut.

    Raises:
        ModelError: if a token id has no row in the embedding table.
    """
    rows, content = model.encode_rows(texts)
    cut = []
    for index, (row, (start, stop)) in enumerate(zip(rows, content, strict=True)):
        excess = len(row) - model.max_length
        if excess > 0:
            cut.append(index)
            rows[index] = [*row[: stop - excess], *row[stop:]]
            content[index] = (start, stop - excess)
    model.check(texts, rows)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    with torch.no_grad():
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            batch = model.collate([rows[index] for index in chosen], [content[index] for index in chosen])
            for index, result in zip(chosen, read(batch).to("cpu", torch.float64), strict=True):
                found[index] = result
            if progress is not None:
                progress(first + len(chosen), len(order))
    return torch.stack(found), cut


def fitting(model: Model, texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """Texts as far as a model reads them, and which of them are cut, by index.

    A text that is too long ends after the last word with which it fits, so that what is read and what is
    counted are the same; words are what blanks part. One whose first word is too long stays as it is.
    """
    found = list(texts)
    rows, _ = model.encode_rows(texts)
    cut = [index for index, row in enumerate(rows) if len(row) > model.max_length]
    for index in cut:
        ends = [word.end() for word in re.finditer(r"\S+", texts[index])]
        fits, too_many = 0, len(ends)
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            row = model.encode_rows([texts[index][: ends[middle - 1]]])[0][0]
            fits, too_many = (middle, too_many) if len(row) <= model.max_length else (fits, middle)
        if fits:
            found[index] = texts[index][: ends[fits - 1]]
    return found, cut


def cut_note(cut: Iterable[int], model: Model, what: str = "caption") -> str:
    """What a reader has to know about texts that were cut; empty if none was."""
    count = len(list(cut))
    if not count:
        return ""
    texts = f"{count} {what}{'s were' if count > 1 else ' was'}"
    return (
        f"{texts} cut to the {model.max_length} tokens that {model.name} reads; the value is of the part "
        "that was read"
    )

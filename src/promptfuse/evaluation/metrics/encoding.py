"""Captions through a model in batches: rows of like length together, long ones cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from promptfuse.models import Batch, Model

BATCH = 64
"""Rows that go through a model together."""


def read_in_batches(
    model: Model, texts: Sequence[str], read: Callable[[Batch], Tensor], batch_size: int = BATCH
) -> tuple[Tensor, int]:
    """What a model gives for each text, and how many of them it could not read whole.

    A text that is longer than the model takes is cut at its end, behind which the special tokens come as
    ever; judges such as CLIPScore's read captions so.

    Args:
        model: what reads.
        texts: none of them without tokens where the model needs one.
        read: from a batch to numbers, (rows, ...).
        batch_size: rows at a time; results agree to rounding for any.

    Returns:
        (texts, ...) in float64 on the CPU, and how many were cut.

    Raises:
        ModelError: if a token id has no row in the embedding table.
    """
    rows, content = model.encode_rows(texts)
    cut = 0
    for index, (row, (start, stop)) in enumerate(zip(rows, content, strict=True)):
        excess = len(row) - model.max_length
        if excess > 0:
            cut += 1
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
    return torch.stack(found), cut


def cut_note(cut: int, model: Model) -> str:
    """What a reader has to know about texts that were cut; empty if none was."""
    return f"{cut} texts were cut to the {model.max_length} tokens that {model.name} takes" if cut else ""

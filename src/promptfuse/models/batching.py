"""Batches that fit: sizes from an estimate of memory, halved when it turns out too small."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import torch

from promptfuse._utils.memory import available_memory

Result = TypeVar("Result")

CPU_CHUNK = 96 * 2**20
"""Bytes of activations in one pass on a CPU: fewer read the weights too often, more fall out of the cache."""

FEWEST_TOKENS = 256
"""Tokens worth a pass of their own, whatever they take: weights are read once a pass."""


def available_bytes(device: torch.device) -> int:
    """Memory of a device that can still be taken; a careful guess where it cannot be asked.

    What caches hold counts: the kernel's of files, and torch's of memory that tensors had.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return _available(int(time.monotonic()))


@lru_cache(maxsize=1)
def _available(second: int) -> int:
    """What ``available_memory`` says, asked once a second: a step asks for many batches."""
    del second
    found = available_memory()
    return 2 * 2**30 if found is None else found


def prefix_bytes(device: torch.device) -> int:
    """Memory to keep keys and values of prefixes in: at most a sixteenth of what is free, or 1 GiB."""
    return min(2**30, available_bytes(device) // 16)


def bytes_per_token(config: Any, itemsize: int, vocabulary: int = 0) -> int:
    """Memory that a token takes in the widest part of a forward pass without gradients.

    Args:
        config: the text model's configuration.
        itemsize: bytes of a parameter.
        vocabulary: the width of the logits, 0 if there are none.
    """
    width = next(
        (value for name in ("hidden_size", "n_embd", "d_model", "dim") if (value := _number(config, name))),
        1024,
    )
    inner = next(
        (
            value
            for name in ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "hidden_dim")
            if (value := _number(config, name))
        ),
        4 * width,
    )
    # The residual, its norm, queries, keys, values and what comes of them; the inner layer and its
    # activation; the logits, once in float32 and once normalised.
    return itemsize * (8 * width + 2 * inner) + (itemsize + 8) * vocabulary


def _number(config: Any, name: str) -> int:
    value = getattr(config, name, None)
    return value if isinstance(value, int) else 0


def pass_bytes(device: torch.device) -> int:
    """Memory that the activations of one pass may take."""
    room = available_bytes(device) // 4
    return min(room, CPU_CHUNK) if device.type == "cpu" else room


def token_budget(device: torch.device, per_token: int) -> int:
    """Tokens in one forward pass."""
    return max(FEWEST_TOKENS, pass_bytes(device) // per_token)


def cut(lengths: Sequence[int], budget: int, most_rows: int | None = None, slack: float = 0.125) -> list[int]:
    """Where to cut rows into batches that are padded to their longest.

    Args:
        lengths: tokens of each row, ascending for little padding.
        budget: tokens in a batch, padding included; a single row may be longer.
        most_rows: rows in a batch.
        slack: the share of a batch that may be padding before a new one is begun, if it has tokens enough.

    Returns:
        The end of each batch, ascending.
    """
    ends: list[int] = []
    start, longest, filled = 0, 0, 0
    for index, length in enumerate(lengths):
        rows = index - start
        wider = max(longest, length)
        padded = wider * (rows + 1)
        wasteful = padded - filled - length > slack * padded and filled >= FEWEST_TOKENS
        if rows and (padded > budget or wasteful or (most_rows is not None and rows >= most_rows)):
            ends.append(index)
            start, wider, filled = index, length, 0
        longest, filled = wider, filled + length
    if lengths:
        ends.append(len(lengths))
    return ends


def cut_branches(
    fresh: Sequence[int], prefix_index: Sequence[int], budget: int, most_rows: int | None = None
) -> list[int]:
    """Where to cut branches into batches, which need no padding, rather between prefixes than within one.

    Args:
        fresh: new tokens of each branch.
        prefix_index: the number of each branch's prefix; equal ones side by side.
        budget: tokens in a batch; a single branch may have more.
        most_rows: branches in a batch.

    Returns:
        The end of each batch, ascending.
    """
    ends: list[int] = []
    start, filled, left = 0, 0, sum(fresh)
    for index, tokens in enumerate(fresh):
        # What is left all fits, so that nothing need be cut at a border to keep a prefix whole.
        border = index > start and prefix_index[index] != prefix_index[index - 1] and filled + left > budget
        full = filled + tokens > budget or (most_rows is not None and index - start >= most_rows)
        if index > start and (full or (border and 2 * filled >= budget)):
            ends.append(index)
            start, filled = index, 0
        filled, left = filled + tokens, left - tokens
    return [*ends, len(fresh)] if fresh else []


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "not enough memory", "out of memory")
    )


def run_halving(run: Callable[[int, int], Result], start: int, stop: int) -> list[Result]:
    """``run(start, stop)``, in halves where memory runs out.

    Args:
        run: computes the rows from start to stop.
        start: the first row.
        stop: after the last row.

    Returns:
        The results in order.

    Raises:
        RuntimeError: as it comes from ``run``, if not even one row fits, or for another reason.
    """
    try:
        return [run(start, stop)]
    except (RuntimeError, MemoryError) as error:
        if stop - start < 2 or not out_of_memory(error):
            raise
    # Outside the handler, whose traceback keeps the failed pass's tensors alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = (start + stop) // 2
    return [*run_halving(run, start, middle), *run_halving(run, middle, stop)]

"""Pieces of work side by side on a processor's cores, where each is too small to be shared out well itself.

An operation that torch shares out among threads waits for the slowest of them, and what stands between two
operations is done by one thread while the others idle. Two batches side by side, each by one thread, lose
neither.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from itertools import count
from typing import TypeVar

import torch

from promptfuse.models.batching import CPU_CHUNK

Result = TypeVar("Result")

SHARE = CPU_CHUNK
"""Bytes of activations that are worth a thread: a full batch. Of smaller ones the operations are so short
that threads mostly wait for the interpreter's lock."""


@cache
def _helpers(number: int) -> ThreadPoolExecutor:
    """Threads that each have one core."""
    return ThreadPoolExecutor(number, "promptfuse", initializer=torch.set_num_threads, initargs=(1,))


# The threads of a parent are not in its child.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)


def threads_worth(device: torch.device, size: int) -> int:
    """How many threads to give a part each of work with so many bytes of activations.

    Args:
        device: where the work is done.
        size: bytes of activations.

    Returns:
        As many as torch may use, or one where that does not pay.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return threads if size >= threads * SHARE else 1


def on_threads(works: Sequence[Callable[[], Result]], threads: int) -> list[Result]:
    """Do pieces of work on several threads, each with one core.

    Args:
        works: must not depend on each other. They run with the caller's context and grad mode.
        threads: how many, the caller's included.

    Returns:
        What they return, in their order.

    Raises:
        BaseException: what the first that fails raises, when all threads have stopped.
    """
    threads = min(threads, len(works))
    if threads < 2:
        return [work() for work in works]
    numbers = count()  # Shared: whoever is free takes the next; `next` of it is one step of the interpreter.
    results: dict[int, Result] = {}
    grads = torch.is_grad_enabled()

    def take() -> None:
        with torch.set_grad_enabled(grads):
            while (number := next(numbers)) < len(works):
                results[number] = works[number]()

    before = torch.get_num_threads()
    helpers = _helpers(threads - 1)
    others: list[Future[None]] = [helpers.submit(copy_context().run, take) for _ in range(threads - 1)]
    torch.set_num_threads(1)
    try:
        take()
    finally:
        for other in others:
            other.exception()
        torch.set_num_threads(before)
    for other in others:
        other.result()
    return [results[number] for number in range(len(works))]

"""A pool of processes that share this process's work, and its end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from loky import ProcessPoolExecutor
from loky.process_executor import BrokenProcessPool

from promptfuse._utils.memory import keep_memory_flat

__all__ = ["BrokenProcessPool", "processes"]


@contextmanager
def processes(
    count: int, threads: int, begin: Callable[..., None], *args: Any
) -> Iterator[ProcessPoolExecutor]:
    """Processes that do what is submitted; at an error, they stop at once.

    They are fresh ones, which inherit no threads and do not import the caller's script, so that it needs no
    ``if __name__ == "__main__"``.

    Args:
        count: how many.
        threads: that torch uses in each.
        begin: called in each, before its first piece of work.
        args: what it is called with.

    Yields:
        What takes work. Its futures raise ``BrokenProcessPool`` when a process is killed.
    """
    executor = ProcessPoolExecutor(
        count,
        initializer=_begin,
        initargs=(os.getpid(), threads, begin, args),
        # Models are loaded, and prefixes remembered, by the work; loky would take that for a leak.
        env={"OMP_NUM_THREADS": str(threads), "LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"},
    )
    ended = False
    try:
        yield executor
        ended = True
    finally:
        executor.shutdown(kill_workers=not ended)


def _begin(parent: int, threads: int, begin: Callable[..., None], args: tuple[Any, ...]) -> None:
    """What a process begins with."""
    # An interrupt from the keyboard goes to all; the parent stops the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    keep_memory_flat()
    torch.set_num_threads(threads)
    begin(*args)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a killed one cannot tell."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)

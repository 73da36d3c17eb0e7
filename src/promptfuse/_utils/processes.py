"""Processes of this machine that share work, and their end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

import torch
from loky import ProcessPoolExecutor
from loky.process_executor import BrokenProcessPool

from promptfuse._utils.memory import keep_memory_flat

__all__ = ["BrokenProcessPool", "map_in_processes"]

Task = TypeVar("Task")
Answer = TypeVar("Answer")


def map_in_processes(
    make_worker: Callable[[], Callable[[Task], Answer]],
    tasks: Iterable[Task],
    on_answer: Callable[[int, Answer], None],
    *,
    count: int,
    threads: int,
) -> None:
    """Have several processes work on tasks; at an error, they stop at once.

    The processes are fresh: they inherit no threads and do not import the caller's script, which needs no
    ``if __name__ == "__main__"``. They end with this process, however that ends.

    Args:
        make_worker: called once in each process; what it returns is called with each task.
        tasks: consumed as workers become free, so there may be many.
        on_answer: called in this process with a task's number and its answer, as soon as it is known.
        count: how many processes.
        threads: that torch uses in each.

    Raises:
        BrokenProcessPool: if a process is killed.
        Exception: whatever a worker raises, as it is.
    """
    executor = ProcessPoolExecutor(
        count,
        initializer=_begin,
        initargs=(os.getpid(), threads, make_worker),
        # Models are loaded, and prefixes remembered, by the work; loky would take that for a leak.
        env={"OMP_NUM_THREADS": str(threads), "LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"},
    )
    waiting = enumerate(tasks)
    under_way: dict[Future[Any], int] = {}
    ended = False
    try:
        while True:
            # A few more than there are workers, so that none waits.
            while len(under_way) < 2 * count and (item := next(waiting, None)) is not None:
                under_way[executor.submit(_work, item[1])] = item[0]
            if not under_way:
                break
            for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                on_answer(under_way.pop(done), done.result())
        ended = True
    finally:
        executor.shutdown(kill_workers=not ended)


_WORKER: list[Callable[[Any], Any]] = []
"""That of a worker's process."""


def _begin(parent: int, threads: int, make_worker: Callable[[], Callable[[Any], Any]]) -> None:
    # An interrupt from the keyboard goes to all; the parent stops the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    keep_memory_flat()
    torch.set_num_threads(threads)
    _WORKER[:] = [make_worker()]


def _work(task: Any) -> Any:
    return _WORKER[0](task)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a killed one cannot tell."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)

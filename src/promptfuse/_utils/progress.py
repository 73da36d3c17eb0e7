"""A progress bar for work that has a known number of parts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(title: str, *, always: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on standard error.

    Args:
        title: what is being worked on.
        always: show it where standard error is not a terminal too, as in a notebook.

    Yields:
        A function of how many parts are done and of how many there are; None where nothing is shown.
    """
    if sys.stderr is None or not (always or sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=not always) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

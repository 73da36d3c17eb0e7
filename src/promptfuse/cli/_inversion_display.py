"""Shows how far inversions are: on a terminal a bar and the best text so far, elsewhere a line at times."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from promptfuse.tasks.inversion_inputs import Target
    from promptfuse.tasks.query_meter import QueryMeter

EVERY = 30.0
"""Seconds between two lines, at least."""


class InversionDisplay:
    """Writes a line to standard error, at most every ``EVERY`` seconds.

    Args:
        total: how many inputs there are.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._told = time.monotonic()

    def step(self, target: Target, meter: QueryMeter) -> None:
        """Show how far the search for one input is."""
        best = meter.curve[-1] if meter.curve else None
        said = f", cosine {best.similarity:.3f}: {best.text}" if best is not None else ""
        self.show(f"{target.id}: {meter.queries:,} of {meter.budget + 1:,} queries{said}")

    def next(self) -> None:
        """Count an input that is done."""
        self.done += 1
        self.show("")

    def show(self, text: str) -> None:
        """Show the count, and a text about the input in work."""
        if time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            typer.echo(f"{self.done:,}/{self.total:,} done{'; ' if text else ''}{text}", err=True)


class _OnTerminal(InversionDisplay):
    """Keeps a bar and a text in place."""

    def __init__(self, total: int, bar: Any) -> None:
        super().__init__(total)
        self._bar = bar
        self._task = bar.add_task("inverting", total=total, best="")

    def show(self, text: str) -> None:
        """Show the count, and a text about the input in work."""
        from rich.markup import escape

        self._bar.update(self._task, completed=self.done, best=escape(text))


@contextmanager
def inversion_display(total: int) -> Iterator[InversionDisplay]:
    """Shows inversions while they are made."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield InversionDisplay(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[best]}", table_column=Column(no_wrap=True, ratio=1)),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        yield _OnTerminal(total, bar)

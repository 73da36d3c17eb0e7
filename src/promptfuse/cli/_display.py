"""What a terminal shows while a search runs: the step, a bar, the best text so far and its value."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptfuse.search import Search


class SearchDisplay:
    """Shows a search in place.

    Args:
        title: what is being searched for.
        show: puts a rich renderable in the place of the last one; None shows nothing.
    """

    def __init__(self, title: str, show: Callable[[Any], None] | None) -> None:
        self.title, self.show = title, show

    def loading(self, model: str) -> None:
        """Show which model is being loaded."""
        from rich.text import Text

        if self.show is not None:
            self.show(Text(f"{self.title}: loading {model}"))

    def step(self, search: Search) -> None:
        """Show the step that was taken and the best text."""
        if self.show is None:
            return
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        step = search.history[-1]
        terms = "  ".join(f"{name} {value:.3f}" for name, value in step.best.terms.items())
        counts = f"{step.exact_evaluations:,} texts  {step.seconds:.1f} s"
        self.show(
            Group(
                Text(f"{self.title}  step {step.number}/{search.steps}", style="bold"),
                ProgressBar(total=search.steps, completed=step.number, width=40),
                Text(step.best.text, style="green" if step.best.complete else ""),
                Text(f"value {step.best.value:.3f}  {terms}  {counts}", style="dim"),
            )
        )


@contextmanager
def search_display(title: str) -> Iterator[SearchDisplay]:
    """Shows a search: on a terminal a few lines that change, elsewhere nothing."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield SearchDisplay(title, None)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(Text(f"{title}: reading"), console=Console(stderr=True), transient=True) as live:
        yield SearchDisplay(title, live.update)

"""How the command line prints errors and warnings: one line each, on standard error."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer

from promptfuse.errors import PromptfuseWarning

_SHOW_OTHERS = warnings.showwarning


def complain(error: Exception) -> None:
    """Print an error in one line."""
    typer.echo(f"promptfuse: {' '.join(str(error).split())}", err=True)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print warnings of this package in one line, all others as Python does."""
    if issubclass(category, PromptfuseWarning):
        typer.echo(f"warning: {message}", err=True)
    else:
        _SHOW_OTHERS(message, category, filename, lineno, file, line)


@contextmanager
def notes_not_logged() -> Iterator[None]:
    """Do not log the notes of results: the commands print them after the result."""
    logger = logging.getLogger("promptfuse.search.loop")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before

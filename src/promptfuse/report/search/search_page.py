"""A page about one search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from promptfuse.report.document import Key, colours_of, write_document
from promptfuse.report.search.pareto import pareto_plots
from promptfuse.report.search.steps import step_plots
from promptfuse.report.search.tree import beam_tree
from promptfuse.search import Result


def write_search_page(
    path: Path, name: str, result: Result, photos: Sequence[str | Path] = (), settings: str = ""
) -> None:
    """Write the page of a search: its result, its beams as a tree, its terms by step, its Pareto front.

    Args:
        path: the file.
        name: what the search is called.
        result: what it found.
        photos: those that its terms judge by.
        settings: its configuration, shown unchanged; empty for that of the result.

    Raises:
        ConfigError: if the path is a folder or a device.
        ImageError: if a photo cannot be read any more.
        OSError: if it cannot be written.
    """
    colours = colours_of(result.terms)
    write_document(
        path,
        "search.html",
        title="How promptfuse found this text",
        name=name,
        method=_method(result),
        result=result,
        legend=[Key(term, colours[term]) for term in result.terms],
        photos=[Path(photo) for photo in photos],
        tree=beam_tree(result) if result.history else "",
        steps=step_plots(result),
        pairs=pareto_plots(result),
        settings=settings,
    )


def _method(result: Result) -> str:
    """Method and strategy in a few words."""
    method, strategy = result.config["method"], result.config["strategy"]
    names = [part["name"] for part in method.get("methods", [method])]
    width = f" of width {strategy['width']}" if strategy["width"] > 1 else ""
    return f"{', then '.join(names)}; {strategy['name']}{width}"

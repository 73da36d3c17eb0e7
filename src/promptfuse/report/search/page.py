"""A page of several photos: their captions, and how the searches found them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from promptfuse.models.images import ImageLike
from promptfuse.report.document import Key, colours_of, write_document
from promptfuse.report.search.changes import compared
from promptfuse.report.search.pareto import pareto_plots
from promptfuse.report.search.steps import terms_plot, value_plot
from promptfuse.report.search.tree import beam_tree
from promptfuse.search import Result


@dataclass(frozen=True)
class Card:
    """One photo with the results of its searches.

    Attributes:
        title: a heading.
        image: the photo: a path, an address or an open image; None if there is none.
        results: label (``plain``, ``positive``, ...) and result of each search.
        plots: plots of one's own, shown with the results.
    """

    title: str
    image: ImageLike | None
    results: Sequence[tuple[str, Result]]
    plots: Sequence[Markup] = ()


def write_page(path: Path, title: str, cards: Sequence[Card], intro: str = "") -> None:
    """Write the page, whole or not at all.

    Args:
        path: the file.
        title: the page's title and heading.
        cards: the photos with their results.
        intro: a paragraph below the heading.

    Raises:
        ConfigError: if the path is a folder or a device.
        OSError: if it cannot be written.
    """
    results = [result for card in cards for _, result in card.results]
    names = dict.fromkeys(name for result in results for name in result.terms)
    colours = colours_of(names)
    write_document(
        path,
        "cards.html",
        title=title,
        intro=intro,
        cards=cards,
        legend=[Key(name, colours[name]) for name in names],
        results=results,
        compared=compared,
        value_plot=value_plot,
        terms_plot=terms_plot,
        pareto_plots=pareto_plots,
        beam_tree=beam_tree,
    )


__all__ = ["Card", "write_page"]

"""A page of inversions: the texts that were found, and how the searches found them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from promptfuse.models.images import ImageLike
from promptfuse.report.document import GREEN, counted
from promptfuse.report.plots import Point, Series, line_plot
from promptfuse.report.search.page import Card, write_page
from promptfuse.tasks.inversion import Inversion


def similarity_plot(inversion: Inversion) -> Markup:
    """The cosine of the nearest text so far against the queries made."""
    points = [
        Point(one.queries, one.similarity, f"{one.similarity:.4f}\n{one.text}") for one in inversion.curve
    ]
    series = [Series("nearest text so far", GREEN, points)]
    return line_plot("Cosine against queries", series, "cosine", x_label="queries")


def write_inversions(
    path: Path, inversions: Sequence[Inversion], images: Sequence[ImageLike | None], summary: str
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: the file.
        inversions: those with a kept result are shown.
        images: for each the photo that it is of; None if there is none.
        summary: a paragraph below the heading.

    Raises:
        ConfigError: if the path is a folder or a device.
        OSError: if it cannot be written.
    """
    cards = [
        Card(
            one.source or one.id,
            image,
            [(f"cosine {one.similarity:.3f}, rank {one.rank} of {one.among}", one.result)],
            [similarity_plot(one)],
        )
        for one, image in zip(inversions, images, strict=True)
        if one.result is not None
    ]
    if left_out := len(inversions) - len(cards):
        summary += f". {counted(left_out, 'text')} found by an earlier run not shown."
    write_page(path, "How promptfuse found these texts", cards, summary)

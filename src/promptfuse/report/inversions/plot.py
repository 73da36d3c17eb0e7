"""A plot of similarity against queries as an image, by matplotlib, which the ``plot`` extra installs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from promptfuse.adapters.diagnostics.plots import check_plot
from promptfuse.tasks.inversion import Inversion

MOST = 200
"""Lines of single inputs that are drawn; the mean is of all."""


def plot_inversions(inversions: Sequence[Inversion], path: Path) -> None:
    """Draw the cosine of the nearest text so far against the queries made, for each input and their mean.

    Args:
        inversions: at least one.
        path: the file: ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        ConfigError: if matplotlib is missing, or the file cannot or must not be written.
        OSError: if writing fails.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for one in inversions[:MOST]:
        points = [*((x.queries, x.similarity) for x in one.curve), (one.queries, one.curve[-1].similarity)]
        axis.step(*zip(*points, strict=True), where="post", color="#8aa3c0", linewidth=0.8, alpha=0.6)
    if len(inversions) > 1:
        queries, means = mean_curve(inversions)
        axis.step(queries, means, where="post", color="#1f4e79", linewidth=2, label="mean")
        axis.legend(loc="lower right")
    axis.set_xlabel("encoder queries")
    axis.set_ylabel("cosine of the nearest text so far")
    axis.grid(alpha=0.3)
    figure.suptitle(f"{len(inversions):,} inversion{'' if len(inversions) == 1 else 's'}")
    figure.savefig(path, dpi=120, metadata={"Creator": "promptfuse"})


def mean_curve(inversions: Sequence[Inversion]) -> tuple[list[int], list[float]]:
    """The mean cosine of the nearest texts by queries, from where every search has a text.

    Args:
        inversions: at least one.

    Returns:
        Numbers of queries at which the mean changes, and the mean from there on.
    """
    first = max(one.curve[0].queries for one in inversions)
    last = max(one.queries for one in inversions)
    changes = sorted(
        {first, last, *(x.queries for one in inversions for x in one.curve if x.queries > first)}
    )
    places = [0] * len(inversions)
    means = []
    for queries in changes:
        for number, one in enumerate(inversions):
            while places[number] + 1 < len(one.curve) and one.curve[places[number] + 1].queries <= queries:
                places[number] += 1
        means.append(
            fmean(one.curve[place].similarity for one, place in zip(inversions, places, strict=True))
        )
    return changes, means

"""The page about runs: warnings, tables, plots, gallery, failures, and how each run was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from promptfuse._utils.atomic_files import check_target
from promptfuse.evaluation.metrics import Score
from promptfuse.report import plots
from promptfuse.report.document import GREY, write_document
from promptfuse.report.plots import Point, figure
from promptfuse.report.runs.folders import Run
from promptfuse.report.runs.gallery import gallery
from promptfuse.report.runs.measure import OBJECTIVE, SIMILARITY, TERM, Measured
from promptfuse.report.runs.plots import FRONT, Mark, colour, make_frame, pareto_front, place_names, scatter
from promptfuse.report.runs.sweeps import leaves, sweep_plots
from promptfuse.report.runs.tables import tables
from promptfuse.report.runs.thumbnails import Thumbnails

LIMIT = 2000
"""The most photos in the gallery, unless more are asked for."""

MOST_PAIRS = 3
"""Pairs of terms that have a plot."""


class Pair(NamedTuple):
    """Plots of two terms: the runs' means; every photo, empty if there are too few; and that plot's frame."""

    means: Markup
    each: Markup
    frame: Mapping[str, Any]


def write_report(
    path: Path, measured: Measured, *, photos: Thumbnails | None = None, limit: int = LIMIT
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: the file.
        measured: the runs with their numbers.
        photos: those of the gallery, from ``begin_thumbnails``; None for a gallery without photos.
        limit: the most photos in the gallery.

    Raises:
        ConfigError: if the path is a folder or a device.
        OSError: if it cannot be written.
    """
    check_target(path)
    comparison = measured.comparison
    runs = comparison.runs
    title = f"{len(runs)} runs" if len(runs) > 1 else runs[0].name
    write_document(
        path,
        "report.html",
        title=f"{title} on {comparison.dataset}" if comparison.dataset else title,
        comparison=comparison,
        lost=sum(len(run.failures) for run in runs),
        references=sum(len(comparison.references.get(id_, ())) for id_ in comparison.ids),
        days=sorted(
            {
                str(day)[:10]
                for run in runs
                for key in ("started", "updated")
                if (day := run.manifest.get(key))
            }
        ),
        runs=runs,
        colour=colour,
        warnings=measured.warnings,
        notes=[*comparison.notes, *measured.notes],
        tables=tables(measured),
        costs=cost_plots(measured),
        pairs=term_pairs(measured),
        sweeps=sweep_plots(measured),
        gallery=gallery(measured, limit, photos),
        settings=_settings(runs),
    )


def cost_plots(measured: Measured) -> Markup:
    """Quality against seconds a photo; of one run alone there is nothing to compare."""
    names = ("cider_d", "clipscore", OBJECTIVE) if len(measured.comparison.runs) > 1 else ()
    marks = {name: _marks(measured, "seconds", name) for name in names}
    return Markup().join(
        _means(f"{measured.title(name)} against time", found) for name, found in marks.items() if found
    )


def term_pairs(measured: Measured) -> list[Pair]:
    """Plots of the runs by two terms at a time."""
    terms = [name for name in measured.names() if name.startswith(TERM)]
    # The image's term is easier to read as a similarity.
    terms = [SIMILARITY if name == f"{TERM}image" else name for name in terms]
    found = []
    for across, up in list(combinations(terms, 2))[:MOST_PAIRS]:
        if across == SIMILARITY:
            across, up = up, across
        if marks := _marks(measured, across, up):
            found.append(_pair(measured, across, up, marks))
    return found


def _pair(measured: Measured, across: str, up: str, marks: Sequence[Mark]) -> Pair:
    heading = f"{measured.title(up)} and {measured.title(across)}"
    means = _means(heading, marks, log_x=False) if len(measured.comparison.runs) > 1 else Markup()
    points = [
        Point(x, y)
        for columns in measured.columns
        if across in columns and up in columns
        for x, y in zip(columns[across].values.tolist(), columns[up].values.tolist(), strict=True)
        if x == x and y == y
    ]
    if len(points) < 2:
        return Pair(means, Markup(), {})  # The tables have the numbers of one photo.
    frame = make_frame(marks, _axis(marks[0].x), _axis(marks[0].y), False, points)
    named, nameless = place_names(frame, marks)
    note = "Runs hidden in the gallery are hidden here too."
    each = figure(f"{heading}, each photo", frame, [plots.Mark("cloud"), *named], nameless, note)
    # Ends of the axes, in values and in pixels, for the script that draws the photos.
    axes = {"x": [*frame.x_range, frame.left, frame.end], "y": [*frame.y_range, frame.floor, frame.top]}
    return Pair(means, each, {"across": across, "up": up, **axes})


def _means(heading: str, marks: Sequence[Mark], log_x: bool | None = None) -> Markup:
    """The runs as points, with their Pareto front."""
    line = pareto_front(marks)
    return scatter(
        heading,
        marks,
        _axis(marks[0].x),
        _axis(marks[0].y),
        lines=[(GREY, line)],
        legend=[FRONT] if len(line) > 1 else [],
        log_x=log_x,
    )


def _marks(measured: Measured, across: str, up: str) -> list[Mark]:
    """The runs that have both numbers."""
    pairs = zip(measured.comparison.runs, measured.column(across), measured.column(up), strict=True)
    return [
        Mark(run.name, colour(number), x, y)
        for number, (run, x, y) in enumerate(pairs)
        if x is not None and y is not None
    ]


def _axis(score: Score) -> str:
    return score.title if score.better == "neither" else f"{score.title}, {score.better} is better"


def _settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The settings that runs differ in, with the value of each run."""
    given = [dict(leaves(run.settings)) for run in runs]
    names = dict.fromkeys(name for own in given for name in own)
    found = {name: [own.get(name) for own in given] for name in names}
    return {
        name: [_shown(value) for value in values] for name, values in found.items() if len(set(values)) > 1
    }


def _shown(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

"""The page: warnings, tables, plots, gallery, failures, and how each run was made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any

from promptfuse._utils.atomic_files import check_target
from promptfuse.evaluation.metrics import Score
from promptfuse.report.document import GREY, counted, write_document
from promptfuse.report.plots import Frame, Point, figure
from promptfuse.report.runs.folders import Run
from promptfuse.report.runs.gallery import failures, gallery
from promptfuse.report.runs.measure import OBJECTIVE, SIMILARITY, TERM, Measured
from promptfuse.report.runs.plots import (
    Mark,
    colour,
    draw_marks,
    front_legend,
    make_frame,
    names_of,
    pareto_front,
    scatter,
)
from promptfuse.report.runs.resources import resource
from promptfuse.report.runs.sweeps import leaves, sweep_plots
from promptfuse.report.runs.tables import run_head, tables, title_of
from promptfuse.report.runs.thumbnails import Thumbnails

_CLOUD = "Runs that are hidden in the gallery are hidden here, too."

LIMIT = 2000
"""The most photos in the gallery, unless more are asked for."""

MOST_PAIRS = 3
"""Pairs of terms that have a plot."""


def write_report(
    path: Path, measured: Measured, *, photos: Thumbnails | None = None, limit: int = LIMIT
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: the file.
        measured: the runs with their numbers.
        photos: those of the gallery, see ``begin_thumbnails``; None for a gallery without photos.
        limit: the most photos in the gallery.

    Raises:
        ConfigError: if the path is a folder or a device.
        OSError: if it cannot be written.
    """
    check_target(path)
    numbers = tables(measured)
    sections = [
        ("results", "Results", numbers and f"{_legend(measured)}{numbers}"),
        ("cost", "Quality and time", cost_plots(measured)),
        ("terms", "What is traded for what", pareto_plots(measured)),
        ("sweeps", "As a setting grows", _figures(sweep_plots(measured))),
    ]
    body = "".join(
        f'<section class="part" id="{name}"><h2>{heading}</h2>{inside}</section>'
        for name, heading, inside in sections
        if inside
    )
    pictures = gallery(measured, limit, photos)
    lost = failures(measured.comparison)
    shown = [(name, heading) for name, heading, inside in sections if inside]
    shown += [("gallery", "Gallery")] if pictures else []
    shown += [("failures", "Failures")] if lost else []
    shown += [("runs", "Runs")]
    names = ("tables.js", "gallery.js", "points.js") if pictures else ("tables.js",)
    scripts = "".join(f"<script>{resource(name)}</script>" for name in names)
    body = _remarks(measured) + body + pictures + lost + _runs(measured) + scripts
    comparison = measured.comparison
    runs = comparison.runs
    title = f"{len(runs)} runs" if len(runs) > 1 else runs[0].name
    title += f" on {comparison.dataset}" if comparison.dataset else ""
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading in shown)
    header = f"<p>{_summary(measured)}</p><nav>{links}</nav>"
    write_document(path, title, header, body, escape(_when(runs)), style=resource("report.css"))


def _summary(measured: Measured) -> str:
    comparison = measured.comparison
    written = sum(len(comparison.references[id_]) for id_ in comparison.ids if id_ in comparison.references)
    parts = [f"{counted(len(comparison.ids), 'photo')} captioned by every run"]
    if len(comparison.runs) == 1:
        parts = [f"{counted(len(comparison.ids), 'photo')} captioned"]
    parts.append(counted(written, "reference") if written else "no references")
    lost = sum(len(run.failures) for run in comparison.runs)
    if lost:
        parts.append(f"{lost:,} failed")
    return escape(" · ".join(parts))


def _legend(measured: Measured) -> str:
    """How to read the tables."""
    text = "Small: 95% bootstrap intervals over the photos."
    if len(measured.comparison.runs) > 1:
        text += (
            " Bold: the best in its column; underlined: cannot be told from it, as the interval of the "
            "paired difference holds zero. A column's head sorts by it."
        )
    return f'<p class="soft">{text}</p>'


def _when(runs: Sequence[Run]) -> str:
    """From when to when the runs were made, as far as they tell."""
    days = sorted(
        str(run.manifest[key])[:10] for run in runs for key in ("started", "updated") if run.manifest.get(key)
    )
    if not days:
        return ""
    return f"Runs of {days[0]}." if days[0] == days[-1] else f"Runs of {days[0]} to {days[-1]}."


def _remarks(measured: Measured) -> str:
    warnings = "".join(f"<li>{escape(line)}</li>" for line in measured.warnings)
    notes = "".join(f"<li>{escape(line)}</li>" for line in (*measured.comparison.notes, *measured.notes))
    return (f'<ul class="warnings">{warnings}</ul>' if warnings else "") + (
        f'<ul class="notes">{notes}</ul>' if notes else ""
    )


def _figures(plots: str) -> str:
    return f'<div class="figures">{plots}</div>' if plots else ""


def _marks(measured: Measured, across: str, up: str) -> list[Mark]:
    """The runs that have both numbers."""
    found = []
    for number, run in enumerate(measured.comparison.runs):
        x, y = measured.score(number, across), measured.score(number, up)
        if x is not None and y is not None:
            found.append(Mark(run.name, colour(number), x, y))
    return found


def cost_plots(measured: Measured) -> str:
    """Quality against seconds a photo; of one run alone there is nothing to compare."""
    if len(measured.comparison.runs) < 2:
        return ""
    plots = []
    for name in ("cider_d", "clipscore", OBJECTIVE):
        marks = _marks(measured, "seconds", name)
        if marks:
            title = title_of(measured, name)
            line = pareto_front(marks)
            plots.append(
                scatter(
                    f"{title} against time",
                    marks,
                    "seconds a photo, fewer is better",
                    _axis(marks[0].y),
                    lines=[(GREY, line)],
                    legend=front_legend() if len(line) > 1 else "",
                )
            )
    return _figures("".join(plots))


def pareto_plots(measured: Measured) -> str:
    """The runs' means by two terms at a time, and on demand every photo."""
    terms = [name for name in measured.names() if name.startswith(TERM)]
    # People think of the photo's term as a similarity.
    terms = [SIMILARITY if name == f"{TERM}image" else name for name in terms]
    plots = []
    for across, up in list(combinations(terms, 2))[:MOST_PAIRS]:
        if across == SIMILARITY:
            across, up = up, across
        marks = _marks(measured, across, up)
        if marks:
            plots.append(_pareto(measured, across, up, marks))
    return _figures("".join(plots))


def _pareto(measured: Measured, across: str, up: str, marks: Sequence[Mark]) -> str:
    line = pareto_front(marks)
    heading = f"{title_of(measured, up)} and {title_of(measured, across)}"
    legend = front_legend() if len(line) > 1 else ""
    axes = _axis(marks[0].x), _axis(marks[0].y)
    alone = len(measured.comparison.runs) == 1
    means = "" if alone else scatter(heading, marks, *axes, lines=[(GREY, line)], legend=legend, log_x=False)
    points = [
        Point(x, y)
        for columns in measured.columns
        if across in columns and up in columns
        for x, y in zip(columns[across].values.tolist(), columns[up].values.tolist(), strict=True)
        if x == x and y == y
    ]
    if len(points) < 2:
        return means  # The tables have the numbers of one photo.
    frame = make_frame(marks, *axes, False, points)
    drawn, nameless = draw_marks(frame, marks)
    svg = frame.svg(f'<g class="cloud"></g>{drawn}', f"{heading}, each photo")
    opened = " open" if alone else ""
    return (
        f'<div class="pareto">{means}<details class="each"{opened} {_data_of(frame, across, up)}>'
        f"<summary>Each photo</summary>"
        f"{figure(f'{heading}, each photo', svg, names_of(nameless) + _CLOUD)}</details></div>"
    )


def _data_of(frame: Frame, across: str, up: str) -> str:
    """Where the script that draws the photos finds their numbers, and what it draws them by."""
    frame_values = {
        "x": [*frame.x_range, frame.left, frame.width - frame.right],
        "y": [*frame.y_range, frame.height - frame.bottom, frame.top],
        "across": across,
        "up": up,
    }
    return f'data-frame="{escape(json.dumps(frame_values))}"'


def _axis(score: Score) -> str:
    return score.title + {"higher": ", higher is better", "lower": ", lower is better"}.get(score.better, "")


def _runs(measured: Measured) -> str:
    """Settings that differ, and all that each run says of itself."""
    runs = measured.comparison.runs
    parts = [
        f"<details><summary>{_dot(number)}{escape(run.name)}</summary>{_facts(run)}</details>"
        for number, run in enumerate(runs)
    ]
    inside = _settings(measured) + "".join(parts)
    return f'<section class="part" id="runs"><h2>Runs</h2>{inside}</section>'


def _dot(number: int) -> str:
    return f'<i class="dot" style="background:{colour(number)}"></i>'


def _settings(measured: Measured) -> str:
    """The settings that runs differ in."""
    runs = measured.comparison.runs
    given = [dict(leaves(run.settings)) for run in runs]
    names = [
        name
        for name in dict.fromkeys(name for own in given for name in own)
        if len({own.get(name) for own in given}) > 1
    ]
    if not names:
        return ""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows = "".join(
        f"<tr>{run_head(measured, number)}"
        + "".join(f"<td>{escape(_told(own.get(name)))}</td>" for name in names)
        + "</tr>"
        for number, own in enumerate(given)
    )
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Settings that differ"><table class="plain">'
        "<caption>Settings that differ</caption>"
        f'<thead><tr><th scope="col">run</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _told(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _facts(run: Run) -> str:
    models = "".join(
        f"<li>{escape(role)}: {escape(model['name'])} "
        f"<code>{escape((model['identity'] or model['fingerprint'])[:16])}</code></li>"
        for role, model in run.models.items()
    )
    text = escape(json.dumps(dict(run.manifest), indent=1, ensure_ascii=False))
    return (f"<ul>{models}</ul>" if models else "") + (
        f"<pre>{text}</pre>" if run.manifest else "<p>The run has no manifest.json.</p>"
    )

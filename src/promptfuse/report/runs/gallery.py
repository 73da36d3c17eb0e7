"""The gallery: what its script shows, as data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from promptfuse.evaluation.predictions import Prediction
from promptfuse.report.document import counted
from promptfuse.report.runs.comparison import Comparison
from promptfuse.report.runs.measure import OBJECTIVE, SIMILARITY, TERM, Measured, objective
from promptfuse.report.runs.plots import colour
from promptfuse.report.runs.thumbnails import Thumbnails

SHOWN = ("cider_d", "clipscore", SIMILARITY, OBJECTIVE)
"""Numbers below each caption: the first three that there are."""

SHORT = {SIMILARITY: "similarity"}
"""Titles where there is little room."""

LEFT_OUT = ("bleu_1", "bleu_2", "bleu_3", "self_cider", "vocabulary", "unique")
"""Numbers that say little about a single caption."""

FEW = 1200
"""More photos than this are shown smaller."""

LARGE, SMALL = 144, 96
"""Pixels of a photo's longer side."""


def begin_thumbnails(comparison: Comparison, limit: int) -> Thumbnails:
    """Start making the gallery's photos in other threads."""
    ids = comparison.shown[:limit]
    side = LARGE if len(ids) <= FEW else SMALL
    return Thumbnails([comparison.image(id_) for id_ in ids], side)


class Gallery(NamedTuple):
    """What the gallery's script shows: numbers and texts as data, and small photos in base64, if any."""

    note: str
    data: Mapping[str, Any]
    pictures: Sequence[str]


def gallery(measured: Measured, limit: int, photos: Thumbnails | None = None) -> Gallery | None:
    """The gallery of at most ``limit`` photos; None if no photo is done in all runs."""
    shown = measured.comparison.shown
    ids = shown[:limit]
    if not ids:
        return None
    pictures = [] if photos is None else photos.all()
    note = f"{counted(len(ids), 'photo')} with the caption of each run."
    if len(shown) > len(ids):
        note += f" The first {counted(len(ids), 'photo')}; {len(shown) - len(ids):,} more are left out."
    if unread := pictures.count(""):
        note += f" {counted(unread, 'photo')} could not be read from where the run found them."
    return Gallery(note, _data(measured, ids), pictures)


def _data(measured: Measured, ids: Sequence[str]) -> dict[str, Any]:
    """Runs, metrics, and for each photo its references and captions."""
    comparison = measured.comparison
    known = {name for columns in measured.columns for name in columns}
    names = [name for name in measured.names() if name in known and name not in LEFT_OUT]
    shown = [name for name in SHOWN if name in names][:3]
    cells = [_cells(measured, run, names) for run in range(len(comparison.runs))]
    return {
        "runs": [{"name": run.name, "colour": colour(number)} for number, run in enumerate(comparison.runs)],
        "metrics": [_metric(measured, name, name in shown) for name in names],
        "photos": [
            [id_, list(comparison.references.get(id_, ())), [cell(id_) for cell in cells]] for id_ in ids
        ],
    }


def _metric(measured: Measured, name: str, shown: bool) -> dict[str, Any]:
    columns = [columns[name] for columns in measured.columns if name in columns]
    values = [abs(value) for column in columns for value in column.values.tolist() if math.isfinite(value)]
    largest = max(values, default=0.0)
    return {
        "key": name,
        "title": columns[0].title,
        "short": SHORT.get(name, columns[0].title),
        "better": columns[0].better,
        "digits": 0 if largest >= 100 else 2 if largest >= 10 else 3,
        "shown": shown,
    }


def _cells(measured: Measured, run: int, names: Sequence[str]) -> Callable[[str], list[Any]]:
    """Gives a run's caption of a photo with its numbers: ``[text, [number, ...]]``, or ``[null, reason]``."""
    columns = [measured.columns[run].get(name) for name in names]
    values = [None if column is None else column.values.tolist() for column in columns]
    places = {id_: place for place, id_ in enumerate(measured.comparison.ids)}

    def cell(photo: str) -> list[Any]:
        one = measured.comparison.runs[run].predictions[photo]
        if one.text is None:
            return [None, one.error or "no caption"]
        place = places.get(photo)
        if place is None:
            return [one.text, [_short(_alone(one, name, measured)) for name in names]]
        return [one.text, [None if own is None else _short(own[place]) for own in values]]

    return cell


def _alone(one: Prediction, name: str, measured: Measured) -> float | None:
    """A number of a photo that is not in the tables, from its line alone."""
    if name == OBJECTIVE:
        return objective(one, measured.weights)
    if name == SIMILARITY:
        return 1 - one.terms.get("image", math.nan)
    if name.startswith(TERM):
        return one.terms.get(name.removeprefix(TERM))
    return one.seconds if name == "seconds" else None


def _short(value: float | None) -> float | None:
    """Five digits; None for what JSON does not have."""
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None

"""The gallery: what its script shows, as data, and the frame that it is shown in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from promptfuse.evaluation.metrics import Column
from promptfuse.evaluation.predictions import Prediction
from promptfuse.report.document import counted
from promptfuse.report.runs.comparison import Comparison
from promptfuse.report.runs.measure import OBJECTIVE, SIMILARITY, TERM, Measured, objective
from promptfuse.report.runs.plots import colour
from promptfuse.report.runs.resources import resource
from promptfuse.report.runs.thumbnails import Thumbnails

SHOWN = ("cider_d", "clipscore", SIMILARITY, OBJECTIVE)
"""Numbers that stand below each caption, the first three that there are."""

SHORT = {SIMILARITY: "similarity"}
"""What numbers are called where there is little room."""

LEFT_OUT = ("bleu_1", "bleu_2", "bleu_3", "self_cider", "vocabulary", "unique")
"""Numbers that say little about a single caption."""

FEW = 1200
"""More photos than this are shown smaller."""

LARGE, SMALL = 144, 96
"""Pixels of a photo's longer side."""


def begin_thumbnails(comparison: Comparison, limit: int) -> Thumbnails:
    """Begin to make the gallery's photos."""
    ids = comparison.shown[:limit]
    side = LARGE if len(ids) <= FEW else SMALL
    return Thumbnails([comparison.image(id_) for id_ in ids], side)


def gallery(measured: Measured, limit: int, photos: Thumbnails | None = None) -> str:
    """The gallery as HTML with its data; empty if no photo is done in all runs.

    Args:
        measured: the runs.
        limit: the most photos.
        photos: small photos; None for a gallery without any.
    """
    comparison = measured.comparison
    ids = list(comparison.shown[:limit])
    if not ids:
        return ""
    pictures = [] if photos is None else photos.all()
    unread = pictures.count("")
    missing = f" {counted(unread, 'photo')} could not be read where the run found them." if unread else ""
    cut = len(comparison.shown) - len(ids)
    note = f" The first {counted(len(ids), 'photo')}; {cut:,} more are left out." if cut else ""
    data = _script("data", _data(measured, ids)) + _script("photos", pictures)
    return (
        f'<section class="part" id="gallery"><h2>Gallery</h2>'
        f'<p class="soft">{counted(len(ids), "photo")}, and what each run says.{escape(note + missing)}</p>'
        f"{resource('gallery.html')}{data}</section>"
    )


def _data(measured: Measured, ids: Sequence[str]) -> dict[str, Any]:
    """What the script shows: runs, numbers, and for each photo its references and captions."""
    comparison = measured.comparison
    names = [name for name in measured.names() if name not in LEFT_OUT and _varies(measured, name)]
    shown = [name for name in SHOWN if name in names][:3]
    metrics = [_metric(measured, name, name in shown) for name in names]
    cells = [_Cells(measured, run, names) for run in range(len(comparison.runs))]
    return {
        "runs": [{"name": run.name, "colour": colour(number)} for number, run in enumerate(comparison.runs)],
        "metrics": metrics,
        "photos": [
            [id_, list(comparison.references.get(id_, ())), [cell(id_) for cell in cells]] for id_ in ids
        ],
    }


def _varies(measured: Measured, name: str) -> bool:
    return any(name in columns for columns in measured.columns)


def _metric(measured: Measured, name: str, shown: bool) -> dict[str, Any]:
    column = next(columns[name] for columns in measured.columns if name in columns)
    finite = [
        abs(value)
        for columns in measured.columns
        if name in columns
        for value in columns[name].values.tolist()
        if math.isfinite(value)
    ]
    digits = 0 if finite and max(finite) >= 100 else 2 if finite and max(finite) >= 10 else 3
    return {
        "key": name,
        "title": column.title,
        "short": SHORT.get(name, column.title),
        "better": column.better,
        "digits": digits,
        "shown": shown,
    }


class _Cells:
    """The captions of a run with their numbers: ``[text, [number, ...]]``, or ``[null, reason]``."""

    def __init__(self, measured: Measured, run: int, names: Sequence[str]) -> None:
        self.predictions = measured.comparison.runs[run].predictions
        columns = [measured.columns[run].get(name) for name in names]
        self.values = [_values(column) for column in columns]
        self.rest = [_alone(name, measured) for name in names]
        self.place = {id_: number for number, id_ in enumerate(measured.comparison.ids)}

    def __call__(self, photo: str) -> list[Any]:
        """For one photo."""
        one = self.predictions[photo]
        if one.text is None:
            return [None, one.error or "no caption"]
        place = self.place.get(photo)
        if place is not None:
            found = [None if values is None else values[place] for values in self.values]
        else:
            found = [alone(one) for alone in self.rest]
        return [one.text, [None if value is None else _short(value) for value in found]]


def _values(column: Column | None) -> list[float] | None:
    return None if column is None else column.values.tolist()


def _alone(name: str, measured: Measured) -> Callable[[Prediction], float | None]:
    """A number of a photo that is not in the tables, from its line alone."""
    if name == OBJECTIVE:
        return lambda one: objective(one, measured.weights)
    if name == SIMILARITY:
        return lambda one: 1 - one.terms.get("image", math.nan)
    if name.startswith(TERM):
        return lambda one: one.terms.get(name.removeprefix(TERM))
    if name == "seconds":
        return lambda one: one.seconds
    return lambda one: None


def _short(value: float) -> float | None:
    """Few digits; None for what JSON does not have."""
    if not math.isfinite(value):
        return None
    return float(f"{value:.5g}")


def _script(name: str, values: Any) -> str:
    """Data that no text in it can end or break out of."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f'<script type="application/json" id="{name}">{text.replace("<", chr(92) + "u003c")}</script>'


def failures(comparison: Comparison) -> str:
    """The photos that failed, by run, with their reasons; empty if none did."""
    parts = []
    for number, run in enumerate(comparison.runs):
        if not run.failures:
            continue
        rows = "".join(
            f"<tr><td>{escape(one.id)}</td><td>{escape(one.error or 'no reason is given')}</td></tr>"
            for one in run.failures
        )
        parts.append(
            f'<details open><summary><i class="dot" style="background:{colour(number)}"></i>'
            f"{escape(run.name)}: {len(run.failures):,} of {len(run.predictions):,} photos</summary>"
            '<div class="wide"><table class="plain"><thead><tr><th scope="col">photo</th>'
            f'<th scope="col">reason</th></tr></thead><tbody>{rows}</tbody></table></div></details>'
        )
    if not parts:
        return ""
    return f'<section class="part" id="failures"><h2>Photos without a caption</h2>{"".join(parts)}</section>'

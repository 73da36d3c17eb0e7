"""Runs as points with intervals: the quality of their captions, their cost, and their trade-offs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from markupsafe import Markup

from promptfuse.evaluation.metrics import Score
from promptfuse.report import plots
from promptfuse.report.document import GREY, Key
from promptfuse.report.lettering import shorten, text_width
from promptfuse.report.plots import LETTERS, Frame, Label, LogFrame, Point, figure

COLOURS = tuple(
    "#3b6fb6 #d9822b #3f8f5b #a65aa0 #c2504d #2f9c9c #9a8a1f #8a6f5c #6a8fd8 #e0a35f #7fb069 #c98bc4".split()
)
"""Colours of the runs, in their order."""

FRONT = Key("Pareto front of the two", GREY, "line")
"""The legend of the dashed line."""

_LINE = 19
"""Height of a label's line, in pixels."""
_LONGEST = 170
"""Pixels that a label takes at most; longer names are shortened."""
_SPREAD = 8.0
"""Where the most seconds are more than this times the least, their axis is logarithmic."""


def colour(run: int) -> str:
    """The colour of a run, by its place."""
    return COLOURS[run % len(COLOURS)]


@dataclass(frozen=True)
class Mark:
    """A run in a plot: its name and colour, and two numbers with their intervals."""

    name: str
    colour: str
    x: Score
    y: Score

    @property
    def point(self) -> Point:
        """Where it is."""
        return Point(self.x.value, self.y.value)

    def whiskers(self) -> tuple[list[Point], list[Point]]:
        """The ends of its intervals, across and up."""
        across = [Point(x, self.y.value) for x in ends(self.x)]
        return across, [Point(self.x.value, y) for y in ends(self.y)]


class Box(NamedTuple):
    """A rectangle of a plot that something is drawn on, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area that two share."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(high, 0.0)


def ends(score: Score) -> tuple[float, float]:
    """The interval, or the number twice where there is none."""
    if score.low is None or score.high is None:
        return score.value, score.value
    return min(score.low, score.value), max(score.high, score.value)


def scatter(
    heading: str,
    marks: Sequence[Mark],
    x_label: str,
    y_label: str,
    *,
    lines: Sequence[tuple[str, Sequence[Mark]]] = (),
    legend: Sequence[Key] = (),
    note: str = "",
    log_x: bool | None = None,
) -> Markup:
    """Points with intervals and names; nothing where there are none.

    Args:
        heading: above the plot.
        marks: the points.
        x_label: name of the horizontal axis.
        y_label: name of the vertical axis.
        lines: colour and points of dashed lines.
        legend: entries below the plot, before the ``note``.
        note: a text.
        log_x: whether the horizontal axis is logarithmic; None for where that shows more.
    """
    if not marks:
        return Markup()
    frame = make_frame(marks, x_label, y_label, log_x)
    named, nameless = place_names(frame, marks)
    drawn = [
        plots.Mark("line", [mark.point for mark in line], {"stroke": stroke, "stroke-dasharray": "4 3"})
        for stroke, line in lines
    ]
    for mark in marks:
        style = {"stroke": mark.colour, "stroke-width": 1.6, "opacity": 0.55}
        drawn += [plots.Mark("line", whisker, style) for whisker in mark.whiskers()]
    return figure(heading, frame, [*drawn, *named], [*nameless, *legend], note)


def make_frame(
    marks: Sequence[Mark],
    x_label: str,
    y_label: str,
    log_x: bool | None = None,
    more: Sequence[Point] = (),
) -> Frame:
    """Axes that hold the marks with their intervals, and further points."""
    points = [Point(x, y) for mark in marks for x in ends(mark.x) for y in ends(mark.y)] + list(more)
    least, most = min(point.x for point in points), max(point.x for point in points)
    if log_x is None:
        log_x = least > 0 and most > _SPREAD * least
    kind = LogFrame if log_x and least > 0 else Frame
    return kind(points, x_label, y_label, height=330, whole_x=False)


def place_names(frame: Frame, marks: Sequence[Mark]) -> tuple[list[plots.Mark], list[Key]]:
    """Points with names, each where it covers least; and a legend of those without a free place."""
    taken = [_box(frame, [mark.point], 6) for mark in marks]
    # A name may cross an interval, but no point and no other name.
    whiskers = [_box(frame, whisker, 1) for mark in marks for whisker in mark.whiskers()]
    found, nameless = [], []
    for mark in marks:
        name = shorten(mark.name, _LONGEST, LETTERS)
        free = [
            (sum(box.overlap(other) for other in whiskers), place, box, anchor)
            for place, (box, anchor) in enumerate(_places(frame, mark, text_width(name, LETTERS)))
            if not any(box.overlap(other) for other in taken)
        ]
        label = None
        if free:
            *_, box, anchor = min(free)
            taken.append(box)
            at = {"start": box.left, "end": box.right, "middle": (box.left + box.right) / 2}[anchor]
            label = Label(at, box.bottom - 5, name, anchor)
        else:
            nameless.append(Key(mark.name, mark.colour))
        numbers = f"{frame.x_label}: {_interval(mark.x)}\n{frame.y_label}: {_interval(mark.y)}"
        point = replace(mark.point, hover=f"{mark.name}\n{numbers}")
        found.append(plots.Mark("named", [point], {"fill": mark.colour}, 5, label))
    return found, nameless


def pareto_front(marks: Sequence[Mark]) -> list[Mark]:
    """Those that no other is at least as good as in both numbers and better in one, from left to right."""
    gains = [
        tuple(one.value if one.better == "higher" else -one.value for one in (mark.x, mark.y))
        for mark in marks
    ]
    front = [
        mark
        for mark, own in zip(marks, gains, strict=True)
        if not any(a >= own[0] and b >= own[1] and (a, b) != own for a, b in gains)
    ]
    return sorted(front, key=lambda mark: mark.x.value)


def _interval(score: Score) -> str:
    """A number and its interval, for a person."""
    low, high = ends(score)
    return f"{score.value:.4g}" + (f" ({low:.4g} to {high:.4g})" if high > low else "")


def _box(frame: Frame, points: Sequence[Point], margin: float) -> Box:
    """The rectangle around points, lower left first."""
    first, last = points[0], points[-1]
    left, top, right, bottom = frame.x(first.x), frame.y(last.y), frame.x(last.x), frame.y(first.y)
    return Box(left - margin, top - margin, right + margin, bottom + margin)


def _places(frame: Frame, mark: Mark, wide: float) -> list[tuple[Box, str]]:
    """Places for a name around a point and inside the plot, the better ones first."""
    x, y, half = frame.x(mark.x.value), frame.y(mark.y.value), _LINE / 2
    beside = [
        (Box(left, y - half + off, left + wide, y + half + off), anchor)
        for off in (-9, 10, -28, 29)
        for left, anchor in ((x + 8, "start"), (x - 8 - wide, "end"))
    ]
    over = (Box(x - wide / 2, y - 8 - _LINE, x + wide / 2, y - 8), "middle")
    under = (Box(x - wide / 2, y + 8, x + wide / 2, y + 8 + _LINE), "middle")
    return [
        (box, anchor)
        for box, anchor in (*beside[:4], over, under, *beside[4:])
        if frame.left <= box.left and box.right <= frame.width
        and frame.top - 8 <= box.top and box.bottom <= frame.floor
    ]  # fmt: skip

"""Runs as points with intervals: what their captions are worth, what they cost, what they trade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from promptfuse.evaluation.metrics import Score
from promptfuse.report.document import GREY, keys
from promptfuse.report.lettering import shorten, text_width
from promptfuse.report.plots import LETTERS, Frame, LogFrame, Point, figure, title

COLOURS = tuple(
    "#3b6fb6 #d9822b #3f8f5b #a65aa0 #c2504d #2f9c9c #9a8a1f #8a6f5c #6a8fd8 #e0a35f #7fb069 #c98bc4".split()
)
"""Of the runs, in their order."""

_LINE = 19
"""Pixels that a line of a label takes."""
_LONGEST = 170
"""Pixels that a label takes at most; longer names are shortened."""
_SPREAD = 8.0
"""Where the most seconds are more than this times the least, their axis is logarithmic."""


def colour(run: int) -> str:
    """Of a run, by its place."""
    return COLOURS[run % len(COLOURS)]


@dataclass(frozen=True)
class Mark:
    """A run in a plot.

    Attributes:
        name: beside the point.
        colour: of the point.
        x: with its interval.
        y: with its interval.
    """

    name: str
    colour: str
    x: Score
    y: Score

    def corners(self) -> list[Point]:
        """What has to be inside the frame."""
        return [Point(x, y) for x in ends(self.x) for y in ends(self.y)]


@dataclass(frozen=True)
class Box:
    """Part of a plot that something is drawn on."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area that two share."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return wide * high if wide > 0 and high > 0 else 0.0

    def holds(self, other: Box) -> bool:
        """Whether another is wholly inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )


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
    legend: str = "",
    log_x: bool | None = None,
) -> str:
    """Points with intervals and names, and lines through some of them; nothing where there are none.

    Args:
        heading: above the plot.
        marks: the points.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        lines: colour and points of each.
        legend: HTML below the plot.
        log_x: whether the horizontal axis is logarithmic; None for where that shows more.
    """
    if not marks:
        return ""
    frame = make_frame(marks, x_label, y_label, log_x)
    paths = "".join(
        f'<polyline points="{" ".join(f"{frame.x(m.x.value):.1f},{frame.y(m.y.value):.1f}" for m in line)}" '
        f'fill="none" stroke="{stroke}" stroke-dasharray="4 3"/>'
        for stroke, line in lines
    )
    drawn, nameless = draw_marks(frame, marks)
    inside = paths + "".join(_bars(frame, mark) for mark in marks) + drawn
    return figure(heading, frame.svg(inside, heading), names_of(nameless) + legend)


def make_frame(
    marks: Sequence[Mark],
    x_label: str,
    y_label: str,
    log_x: bool | None = None,
    more: Sequence[Point] = (),
) -> Frame:
    """Axes that hold the marks with their intervals, and further points."""
    points = [point for mark in marks for point in mark.corners()] + list(more)
    least, most = min(point.x for point in points), max(point.x for point in points)
    if log_x is None:
        log_x = least > 0 and most > _SPREAD * least
    kind = LogFrame if log_x and least > 0 else Frame
    return kind(points, x_label, y_label, height=330, whole_x=False)


def draw_marks(frame: Frame, marks: Sequence[Mark]) -> tuple[str, list[Mark]]:
    """Points and their names, each where it covers least; and the marks whose names found no free place."""
    taken = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in (_place(frame, mark) for mark in marks)]
    # An interval may be crossed by a name, a point and another name not.
    bars = []
    for mark in marks:
        x, y = _place(frame, mark)
        low, high = ends(mark.y)
        bars.append(Box(x - 1, frame.y(high), x + 1, frame.y(low)))
        low, high = ends(mark.x)
        bars.append(Box(frame.x(low), y - 1, frame.x(high), y + 1))
    inside = Box(frame.left, frame.top - 8, frame.width, frame.height - frame.bottom)
    found, nameless = [], []
    for mark in marks:
        x, y = _place(frame, mark)
        name = shorten(mark.name, _LONGEST, LETTERS)
        free = [
            (box, anchor)
            for box, anchor in _candidates(x, y, text_width(name, LETTERS))
            if inside.holds(box) and not any(box.overlap(other) for other in taken)
        ]
        text = ""
        if free:
            box, anchor = min(free, key=lambda one: sum(one[0].overlap(other) for other in bars))
            taken.append(box)
            at = {"start": box.left, "end": box.right, "middle": (box.left + box.right) / 2}[anchor]
            text = f'<text x="{at:.1f}" y="{box.bottom - 5:.1f}" text-anchor="{anchor}">{escape(name)}</text>'
        else:
            nameless.append(mark)
        x_text, y_text = format_interval(mark.x), format_interval(mark.y)
        hover = f"{mark.name}\n{frame.x_label}: {x_text}\n{frame.y_label}: {y_text}"
        found.append(
            f'<g class="mark"><circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{mark.colour}">{title(hover)}'
            f"</circle>{text}</g>"
        )
    return "".join(found), nameless


def names_of(marks: Sequence[Mark]) -> str:
    """A legend of points whose names found no place beside them."""
    return keys((mark.name, mark.colour) for mark in marks)


def format_interval(score: Score) -> str:
    """A number and its interval, for a person."""
    low, high = ends(score)
    return f"{score.value:.4g}" + (f" ({low:.4g} to {high:.4g})" if high > low else "")


def pareto_front(marks: Sequence[Mark]) -> list[Mark]:
    """Those that no other is at least as good as in both numbers and better in one, from left to right."""

    def signs(mark: Mark) -> tuple[float, float]:
        return (
            mark.x.value * (1 if mark.x.better == "higher" else -1),
            mark.y.value * (1 if mark.y.better == "higher" else -1),
        )

    def dominated(mark: Mark) -> bool:
        own = signs(mark)
        return any(
            other[0] >= own[0] and other[1] >= own[1] and other != own
            for other in (signs(one) for one in marks)
        )

    return sorted((mark for mark in marks if not dominated(mark)), key=lambda mark: mark.x.value)


def front_legend() -> str:
    """What the dashed line is."""
    return keys([("dominated by no other run in both", f"{GREY};height:2px;vertical-align:middle")])


def _place(frame: Frame, mark: Mark) -> tuple[float, float]:
    return frame.x(mark.x.value), frame.y(mark.y.value)


def _bars(frame: Frame, mark: Mark) -> str:
    x, y = _place(frame, mark)
    (left, right), (low, high) = ends(mark.x), ends(mark.y)
    return (
        f'<path d="M{frame.x(left):.1f} {y:.1f}H{frame.x(right):.1f}'
        f'M{x:.1f} {frame.y(low):.1f}V{frame.y(high):.1f}" '
        f'stroke="{mark.colour}" stroke-width="1.6" opacity="0.55" fill="none"/>'
    )


def _candidates(x: float, y: float, wide: float) -> list[tuple[Box, str]]:
    """Places for a name around a point, the better ones first."""
    half = _LINE / 2
    beside = [
        (Box(left, y - half + off, left + wide, y + half + off), anchor)
        for off in (-9, 10, -28, 29)
        for left, anchor in ((x + 8, "start"), (x - 8 - wide, "end"))
    ]
    over = (Box(x - wide / 2, y - 8 - _LINE, x + wide / 2, y - 8), "middle")
    under = (Box(x - wide / 2, y + 8, x + wide / 2, y + 8 + _LINE), "middle")
    return [*beside[:4], over, under, *beside[4:]]

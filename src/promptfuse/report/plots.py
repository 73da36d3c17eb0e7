"""Plots as inline SVG: axes, lines, bars and points, drawn by ``templates/plot.html``.

Why our own SVG: the plots belong to pages that must follow the reader's dark mode and fonts, keep letters
readable on a phone, show texts on hover, find a free place for each run's name, and let the gallery's script
add a point for every photo. Matplotlib does none of these, so most of this module would remain beside it,
with post-processing of its SVG. Vega-Lite needs hundreds of kilobytes of JavaScript in every page and shows
nothing without it. Figures for papers (PNG and PDF, by ``promptfuse adapter fidelity`` and the benchmarks)
are matplotlib's, which the ``plot`` extra installs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from markupsafe import Markup

from promptfuse.report.document import Key, render
from promptfuse.report.lettering import shorten, text_width

MANY = 160
"""Lines with more points have no visible marks, and more bars become a line."""

LETTERS = 16
"""Size of letters, in a plot's own pixels, where it is narrowest (page.css); the layout assumes it."""


@dataclass(frozen=True)
class Point:
    """A place in a plot, in the units of its axes, and the text on hover."""

    x: float
    y: float
    hover: str = ""


@dataclass(frozen=True)
class Series:
    """Points with a name for the legend and a CSS colour."""

    name: str
    colour: str
    points: Sequence[Point]

    @property
    def key(self) -> Key:
        """Its entry in the legend."""
        return Key(self.name, self.colour)


class Label(NamedTuple):
    """A text in a plot, at pixels."""

    x: float
    y: float
    text: str
    anchor: str = "start"


@dataclass(frozen=True)
class Mark:
    """What is drawn on the axes.

    Attributes:
        kind: ``line`` through the points; ``dots``; ``bars`` from zero to each point; ``named``, a dot with
            its label; or ``cloud``, a place that a script fills with points.
        points: in the units of the axes.
        style: attributes of SVG.
        size: radius of dots or width of bars, in pixels.
        label: a text beside it.
    """

    kind: Literal["line", "dots", "bars", "named", "cloud"]
    points: Sequence[Point] = ()
    style: Mapping[str, Any] = field(default_factory=dict)
    size: float = 0.0
    label: Label | None = None


@dataclass
class Frame:
    """The axes of a plot that must hold some points; converts values to pixels.

    ``from_zero`` begins the vertical axis at zero, ``whole_x`` has ticks at whole numbers only.
    """

    points: Sequence[Point]
    x_label: str
    y_label: str
    width: int = 480
    height: int = 230
    from_zero: bool = False
    whole_x: bool = True
    x_range: tuple[float, float] = field(init=False)
    y_range: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        # The vertical axis is named above the plot; ticks and the name of the horizontal one are below.
        self.right, self.top, self.bottom = 22, 32, 50
        self.end, self.floor = self.width - self.right, self.height - self.bottom
        self.x_range = self._x_range([point.x for point in self.points])
        low, high = _range([point.y for point in self.points] + [0.0] * self.from_zero, 0.05)
        self.y_range = (0.0, high) if self.from_zero else (low, high)
        widest = max(text_width(f"{tick:g}", LETTERS) for tick in self.y_ticks())
        self.left = max(44, math.ceil(widest) + 10)

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.end - self.left)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self.y_range
        return self.top + (high - value) / (high - low) * (self.floor - self.top)

    def x_ticks(self) -> list[float]:
        """Ticks of the horizontal axis: as many as their labels leave room for."""
        choices = [ticks(*self.x_range, count, whole=self.whole_x) for count in (8, 6, 4, 3, 2)]
        return next((found for found in choices if self._apart(found)), choices[-1][:1])

    def y_ticks(self) -> list[float]:
        """Ticks of the vertical axis."""
        return ticks(*self.y_range, max(2, (self.floor - self.top) // 30))

    def labels(self) -> list[Label]:
        """Numbers at the ticks and the names of the axes."""
        across, up = (shorten(name, self.width - 8, LETTERS) for name in (self.x_label, self.y_label))
        # In the middle of the axis, but not over the edge.
        middle = min((self.left + self.end) / 2, self.width - text_width(across, LETTERS) / 2 - 4)
        return [
            *(Label(self.left - 6, self.y(tick) + 4, f"{tick:g}", "end") for tick in self.y_ticks()),
            *(Label(self.x(tick), self.floor + 19, f"{tick:g}", "middle") for tick in self.x_ticks()),
            Label(middle, self.height - 7, across, "middle"),
            Label(4, 16, up),
        ]

    def _x_range(self, values: Sequence[float]) -> tuple[float, float]:
        return _range(values, 0.0 if self.whole_x else 0.05)

    def _apart(self, found: Sequence[float]) -> bool:
        """Whether the labels of ticks are apart from each other and end within the plot."""
        halves = [(self.x(tick), text_width(f"{tick:g}", LETTERS) / 2) for tick in found]
        return all(half <= x <= self.width - half for x, half in halves) and all(
            x + half + 6 <= other - other_half for (x, half), (other, other_half) in pairwise(halves)
        )


class LogFrame(Frame):
    """A frame whose horizontal axis is logarithmic; all x are positive."""

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x_range
        return self.left + math.log(value / low) / math.log(high / low) * (self.end - self.left)

    def x_ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten; the powers alone, or some of them, where those are many."""
        low, high = self.x_range
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = [round(factor * 10.0**power, 12) for power in powers for factor in (1, 2, 5)]
        inside = [tick for tick in every if low <= tick <= high]
        tens = [tick for tick in inside if math.log10(tick) == round(math.log10(tick))]
        choices = [inside, *(tens[::step] for step in range(1, len(tens) + 1)), inside[:1]]
        return next((found for found in choices if found and self._apart(found)), [])

    def _x_range(self, values: Sequence[float]) -> tuple[float, float]:
        room = max(1.15, (max(values) / min(values)) ** 0.05)
        return min(values) / room, max(values) * room


def figure(
    heading: str, frame: Frame, marks: Sequence[Mark], legend: Sequence[Key] = (), note: str = ""
) -> Markup:
    """A plot with its heading above and its legend below."""
    return render("plot.html", heading=heading, frame=frame, marks=marks, legend=legend, note=note)


def line_plot(
    heading: str, series: Sequence[Series], y_label: str, from_zero: bool = False, x_label: str = "step"
) -> Markup:
    """Lines by step; nothing where there are no points, and a table of the values of a single step."""
    series = [one for one in series if one.points]
    points = [point for one in series for point in one.points]
    if not points:
        return Markup()
    if len({point.x for point in points}) == 1:
        return render("values.html", heading=heading, series=series, y_label=y_label)
    frame = Frame(points, x_label, y_label, from_zero=from_zero)
    marks: list[Mark] = []
    values: list[Label] = []
    for one in series:
        if len(one.points) == 1:
            value = _place_value(frame, one.points[0], values)
            values += [value] if value else []
            marks.append(Mark("dots", one.points, {"fill": one.colour}, 4, value))
            continue
        marks.append(Mark("line", one.points, {"stroke": one.colour, "stroke-width": 2}))
        many = len(one.points) > MANY  # Then dots are not seen, but texts are shown on hover.
        every = max(1, len(one.points) // (2 * MANY))
        style = {"fill": one.colour, **({"opacity": 0} if many else {})}
        marks.append(Mark("dots", one.points[::every], style, 4 if many else 2.5))
    return figure(heading, frame, marks, [one.key for one in series])


def bar_plot(heading: str, series: Series, y_label: str) -> Markup:
    """Bars by step; a line where there are many."""
    points = series.points
    if not 1 < len(points) <= MANY:
        return line_plot(heading, [series], y_label, from_zero=True)
    frame = Frame(points, "step", y_label, from_zero=True)
    # Room at both ends, so that the first and last bar are whole.
    frame.x_range = (min(point.x for point in points) - 0.6, max(point.x for point in points) + 0.6)
    gap = (frame.end - frame.left) / (frame.x_range[1] - frame.x_range[0] + 1)
    bars = Mark("bars", points, {"fill": series.colour}, max(1.0, 0.7 * gap))
    return figure(heading, frame, [bars], [series.key])


def ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """About ``count`` round numbers between two others: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    if whole:
        step = max(1.0, step)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    # Rounded, so that 0.30000000000000004 is 0.3.
    return [round(number * step, 12) for number in range(first, last + 1)]


def _place_value(frame: Frame, point: Point, others: Sequence[Label]) -> Label | None:
    """The value of a point beside it, moved up or down where another one is too close."""
    x, y, text = frame.x(point.x), frame.y(point.y), f"{point.y:.4g}"
    wide, high = text_width(text, LETTERS), LETTERS + 2
    left = x + 8 if x + 8 + wide <= frame.width else x - 8 - wide
    for at in (y, y - high, y + high, y - 2 * high, y + 2 * high):
        free = all(
            abs(at + 5 - other.y) >= high
            or left >= other.x + text_width(other.text, LETTERS)
            or left + wide <= other.x
            for other in others
        )
        if free and LETTERS < at < frame.floor:
            return Label(left, at + 5, text)
    return None


def _range(values: Sequence[float], margin: float) -> tuple[float, float]:
    """From the least to the greatest, with some room; never empty."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        room = max(1e-3, abs(high) * 0.1) if margin else 1.0
        return low - room, high + room
    return low - margin * (high - low), high + margin * (high - low)

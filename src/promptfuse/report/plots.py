"""Plots as inline SVG: lines, bars and points, with axes that have labels and ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from promptfuse.report.document import keys
from promptfuse.report.lettering import shorten, text_width

MANY = 160
"""More points than this have no marks of their own, and more bars become a line."""

LETTERS = 16
"""Size of letters, in a plot's own pixels, where it is narrowest (page.css): what it is laid out for."""


@dataclass(frozen=True)
class Point:
    """A place in a plot and what is shown when the mouse is over it."""

    x: float
    y: float
    hover: str = ""


@dataclass(frozen=True)
class Series:
    """A line with a name.

    Attributes:
        name: for the legend.
        colour: any of CSS.
        points: in the order of the line.
        width: of the line, in pixels.
    """

    name: str
    colour: str
    points: Sequence[Point]
    width: float = 2.0


@dataclass
class Frame:
    """The axes of a plot, and where on them a point is.

    Args:
        points: all that is to be shown.
        x_label: what the horizontal axis is.
        y_label: what the vertical axis is.
        width: in pixels.
        height: in pixels.
        from_zero: whether the vertical axis begins at zero.
        whole_x: whether only whole numbers are ticks of the horizontal axis.
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
    _values: list[tuple[float, float, float]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        # Above is the name of the vertical axis, below are ticks and the name of the horizontal one.
        self.right, self.top, self.bottom = 22, 32, 50
        self.x_range = _range([point.x for point in self.points], 0.0 if self.whole_x else 0.05)
        heights = [point.y for point in self.points] + ([0.0] if self.from_zero else [])
        low, high = _range(heights, 0.05)
        self.y_range = (0.0, high) if self.from_zero else (low, high)
        widest = max(text_width(f"{tick:g}", LETTERS) for tick in self.y_ticks())
        self.left = max(44, math.ceil(widest) + 10)

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self.y_range
        return self.top + (high - value) / (high - low) * (self.height - self.top - self.bottom)

    def x_ticks(self) -> list[float]:
        """Where the horizontal axis has ticks: as many as their labels leave room for."""
        for count in (8, 6, 4, 3, 2):
            found = ticks(*self.x_range, count, whole=self.whole_x)
            if self._apart(found):
                return found
        return found[:1]

    def y_ticks(self) -> list[float]:
        """Where the vertical axis has ticks."""
        return ticks(*self.y_range, max(2, (self.height - self.top - self.bottom) // 30))

    def _apart(self, found: Sequence[float]) -> bool:
        """Whether the labels of ticks are apart from each other and end within the plot."""
        ends = [
            (self.x(tick) - wide / 2, self.x(tick) + wide / 2)
            for tick, wide in ((tick, text_width(f"{tick:g}", LETTERS)) for tick in found)
        ]
        return all(left >= 0 and right <= self.width for left, right in ends) and all(
            before + 6 <= after for (_, before), (after, _) in pairwise(ends)
        )

    def svg(self, inside: str, label: str) -> str:
        """The whole plot."""
        floor, end = self.height - self.bottom, self.width - self.right
        parts = [
            f'<path class="grid" d="M{self.left} {self.y(tick):.1f}H{end}"/>'
            f'<text x="{self.left - 6}" y="{self.y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
            for tick in self.y_ticks()
        ]
        parts += [
            f'<text x="{self.x(tick):.1f}" y="{floor + 19}" text-anchor="middle">{tick:g}</text>'
            f'<line class="axis" x1="{self.x(tick):.1f}" x2="{self.x(tick):.1f}" '
            f'y1="{floor}" y2="{floor + 4}"/>'
            for tick in self.x_ticks()
        ]
        across, up = (shorten(name, self.width - 8, LETTERS) for name in (self.x_label, self.y_label))
        # In the middle of the axis, but not over the edge.
        wide = text_width(across, LETTERS) / 2 + 4
        middle = min((self.left + end) / 2, self.width - wide)
        parts.append(
            f'<line class="axis" x1="{self.left}" x2="{end}" y1="{floor}" y2="{floor}"/>'
            f'<text class="name" x="{middle:.0f}" y="{self.height - 7}" text-anchor="middle">'
            f"{escape(across)}</text>"
            f'<text class="name" x="4" y="16">{escape(up)}</text>'
        )
        return (
            f'<svg class="plot" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(label)}">{"".join(parts)}{inside}</svg>'
        )

    def line(self, series: Series) -> str:
        """A line with its marks; of a single point, a larger mark with its value."""
        if len(series.points) == 1:
            return self._single(series.points[0], series.colour)
        places = [(self.x(point.x), self.y(point.y), point.hover) for point in series.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
        radius = 2.5 if len(places) <= MANY else 0
        every = max(1, len(places) // (2 * MANY))
        marks = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius or 4}" fill="{series.colour}"'
            f"{'' if radius else ' opacity=' + chr(34) + '0' + chr(34)}>{title(hover)}</circle>"
            for x, y, hover in places[::every]
        )
        line = (
            f'<polyline points="{path}" fill="none" stroke="{series.colour}" stroke-width="{series.width}"/>'
        )
        return line + marks

    def _single(self, point: Point, colour: str) -> str:
        x, y = self.x(point.x), self.y(point.y)
        mark = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}">{title(point.hover)}</circle>'
        value = f"{point.y:.4g}"
        wide = text_width(value, LETTERS)
        left = x + 8 if x + 8 + wide <= self.width else x - 8 - wide
        # Of several that are close to each other, the later ones go up or down.
        free = (
            y + shift
            for shift in (0, -LETTERS - 2, LETTERS + 2, -2 * LETTERS - 4, 2 * LETTERS + 4)
            if LETTERS < y + shift < self.height - self.bottom
            and all(
                abs(y + shift - other) >= LETTERS + 2 or left >= end or left + wide <= begin
                for other, begin, end in self._values
            )
        )
        at = next(free, None)
        if at is None:
            return mark
        self._values.append((at, left, left + wide))
        return f'{mark}<text class="at" x="{left:.1f}" y="{at + 5:.1f}">{value}</text>'

    def bars(self, series: Series) -> str:
        """A bar for each point."""
        gap = (self.width - self.left - self.right) / max(1.0, self.x_range[1] - self.x_range[0] + 1)
        wide, floor = max(1.0, 0.7 * gap), self.y(0.0)
        return "".join(
            f'<rect x="{self.x(point.x) - wide / 2:.1f}" y="{self.y(point.y):.1f}" width="{wide:.1f}" '
            f'height="{floor - self.y(point.y):.1f}" fill="{series.colour}">{title(point.hover)}</rect>'
            for point in series.points
        )

    def dots(self, points: Iterable[Point], radius: float, style: str) -> str:
        """Points by themselves; ``style`` is attributes of SVG."""
        return "".join(
            f'<circle cx="{self.x(point.x):.1f}" cy="{self.y(point.y):.1f}" r="{radius}" {style}>'
            f"{title(point.hover)}</circle>"
            for point in points
        )


@dataclass
class LogFrame(Frame):
    """A frame whose horizontal axis is logarithmic; all x are positive."""

    def __post_init__(self) -> None:
        super().__post_init__()
        found = [point.x for point in self.points]
        room = max(1.15, (max(found) / min(found)) ** 0.05)
        self.x_range = (min(found) / room, max(found) * room)

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x_range
        share = math.log(value / low) / math.log(high / low)
        return self.left + share * (self.width - self.left - self.right)

    def x_ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten; the powers alone, or some of them, where those are many."""
        low, high = self.x_range
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = [round(factor * 10.0**power, 12) for power in powers for factor in (1, 2, 5)]
        inside = [tick for tick in every if low <= tick <= high]
        tens = [tick for tick in inside if math.log10(tick) == round(math.log10(tick))]
        choices = [inside, *(tens[::step] for step in range(1, len(tens) + 1)), inside[:1]]
        return next((found for found in choices if found and self._apart(found)), [])


def line_plot(heading: str, series: Sequence[Series], y_label: str, from_zero: bool = False) -> str:
    """Lines by step with a heading and a legend; nothing where there are no points."""
    series = [one for one in series if one.points]
    points = [point for one in series for point in one.points]
    if not points:
        return ""
    if len({point.x for point in points}) == 1:
        return _values(heading, series, points[0].x, y_label)
    frame = Frame(points, "step", y_label, from_zero=from_zero)
    legend = keys((one.name, one.colour) for one in series)
    return figure(heading, frame.svg("".join(frame.line(one) for one in series), heading), legend)


def bar_plot(heading: str, series: Series, y_label: str) -> str:
    """Bars by step with a heading."""
    if not series.points:
        return ""
    if len(series.points) == 1:
        return _values(heading, [series], series.points[0].x, y_label)
    if len(series.points) > MANY:
        return line_plot(heading, [series], y_label, from_zero=True)
    frame = Frame(series.points, "step", y_label, from_zero=True)
    # Half a step of room at both ends, so that the first and last bar are whole.
    frame.x_range = (min(p.x for p in series.points) - 0.6, max(p.x for p in series.points) + 0.6)
    return figure(heading, frame.svg(frame.bars(series), heading), keys([(series.name, series.colour)]))


def _values(heading: str, series: Sequence[Series], step: float, y_label: str) -> str:
    """What there is to show of one step: its values in place of axes."""
    rows = "".join(
        f'<tr title="{escape(point.hover)}"><td>{keys([(one.name, one.colour)])}</td>'
        f"<td>{point.y:.4g}</td></tr>"
        for one in series
        for point in one.points
    )
    table = f'<table class="values">{rows}</table>'
    return figure(heading, table, f"{escape(y_label)}; there is step {step:g} only")


def figure(heading: str, svg: str, legend: str) -> str:
    """A plot with a heading above and a legend below."""
    return f'<section class="figure"><h4>{escape(heading)}</h4>{svg}<p class="legend">{legend}</p></section>'


def title(text: str) -> str:
    """What an element shows when the mouse is over it."""
    return f"<title>{escape(text)}</title>" if text else ""


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


def _range(values: Sequence[float], margin: float) -> tuple[float, float]:
    """From the least to the greatest, with some room; never empty."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        room = max(1e-3, abs(high) * 0.1) if margin else 1.0
        return low - room, high + room
    return low - margin * (high - low), high + margin * (high - low)

"""The complete texts by two terms at a time, with the Pareto front of each pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

from promptfuse.report.document import GREEN, GREY, counted, keys
from promptfuse.report.plots import Frame, Point, figure
from promptfuse.search import Hypothesis, Result, pareto_front

MOST_PAIRS = 6
MOST_BEAMS = 1500
"""Texts of the beams that are drawn; of more than that, evenly many."""
FEWEST, MARGIN = 4, 0.6
"""With so many complete texts, beams are drawn no farther from them than this share of their spread."""


def pareto_plots(result: Result) -> str:
    """A plot for each pair of terms, of the first four terms; nothing where there is one term only."""
    complete = {item.text: item for item in result.pareto_front}
    complete |= {step.best.text: step.best for step in result.history if step.best.complete}
    others = {beam.text: beam for step in result.history for beam in step.beams if beam.text not in complete}
    if not complete:
        return ""
    shown = list(others.values())[:: -(-len(others) // MOST_BEAMS) or 1]
    names = list(result.terms)
    pairs = list(combinations(names, 2))[:MOST_PAIRS]
    if not pairs or len(complete) + len(shown) < 2:
        return ""
    plots = "".join(_pair(result, first, second, complete.values(), shown) for first, second in pairs)
    return f'<div class="figures">{plots}</div>'


def _pair(
    result: Result, first: str, second: str, complete: Iterable[Hypothesis], beams: Sequence[Hypothesis]
) -> str:
    def points(items: Iterable[Hypothesis]) -> list[Point]:
        return [
            Point(
                item.terms[first],
                item.terms[second],
                f"{item.text}\n{first} {item.terms[first]:.3f}, {second} {item.terms[second]:.3f}, "
                f"value {item.value:.3f}",
            )
            for item in items
        ]

    complete = list(complete)
    front = pareto_front(complete, {name: result.weights[name] for name in (first, second)})
    dominated = [item for item in complete if item not in front]
    best = [item for item in complete if item.text == result.text]
    line = sorted(points(front), key=lambda point: point.x)
    hollow = _near(points(complete), points(beams))
    outside = len(beams) - len(hollow)
    frame = Frame(
        [*points(complete), *hollow],
        _axis(first, result.weights[first]),
        _axis(second, result.weights[second]),
        height=300,
        whole_x=False,
    )
    path = " ".join(f"{frame.x(point.x):.1f},{frame.y(point.y):.1f}" for point in line)
    inside = (
        frame.dots(hollow, 2.5, f'fill="none" stroke="{GREY}" opacity="0.6"')
        + f'<polyline points="{path}" fill="none" stroke="{GREEN}" stroke-dasharray="4 3"/>'
        + frame.dots(points(dominated), 4, f'fill="{GREY}"')
        + frame.dots(line, 5, f'fill="{GREEN}"')
        + frame.dots(points(best), 9, f'fill="none" stroke="{GREEN}" stroke-width="2" pointer-events="none"')
    )
    heading = f"{first} and {second}"
    legend = keys(
        [
            ("complete, dominated by none in these two terms", GREEN),
            ("complete, dominated", GREY),
            ("beams (hollow)", "transparent;border:1px solid " + GREY),
        ]
    )
    note = "The ring is the text that is returned."
    if outside:
        note += (
            f" {counted(outside, 'beam')} of the search's way lie{'s' if outside == 1 else ''} farther out."
        )
    return figure(heading, frame.svg(inside, heading), f"{legend} {note}")


def _near(complete: Sequence[Point], beams: Sequence[Point]) -> list[Point]:
    """The beams that leave the complete texts room: texts of a word or two lie far from all others."""
    if len({(point.x, point.y) for point in complete}) < FEWEST:
        return list(beams)
    found = list(beams)
    axes: tuple[Callable[[Point], float], ...] = (lambda point: point.x, lambda point: point.y)
    for of in axes:
        low, high = min(map(of, complete)), max(map(of, complete))
        room = MARGIN * (high - low)
        found = [point for point in found if low - room <= of(point) <= high + room]
    return found


def _axis(name: str, weight: float) -> str:
    return f"{name} loss, {'lower' if weight > 0 else 'higher'} is better"

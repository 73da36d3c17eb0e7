"""The complete texts by two terms at a time, with the Pareto front of each pair."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from operator import attrgetter

from markupsafe import Markup

from promptfuse.report.document import GREEN, GREY, Key, counted
from promptfuse.report.plots import Frame, Mark, Point, figure
from promptfuse.search import Hypothesis, Result, pareto_front

MOST_PAIRS = 6
MOST_BEAMS = 1500
"""Texts of the beams that are drawn; of more than that, evenly many."""
FEWEST, MARGIN = 4, 0.6
"""With so many complete texts, beams are drawn no farther from them than this share of their spread."""

LEGEND = (
    Key("complete, on the Pareto front of these two terms", GREEN),
    Key("complete, dominated", GREY),
    Key("beams", GREY, "hollow"),
)


def pareto_plots(result: Result) -> Markup:
    """A plot for each pair of the first four terms; nothing where there is one term only."""
    complete = {item.text: item for item in result.pareto_front}
    complete |= {step.best.text: step.best for step in result.history if step.best.complete}
    others = {beam.text: beam for step in result.history for beam in step.beams if beam.text not in complete}
    shown = list(others.values())[:: -(-len(others) // MOST_BEAMS) or 1]
    if not complete or len(complete) + len(shown) < 2:
        return Markup()
    pairs = list(combinations(result.terms, 2))[:MOST_PAIRS]
    return Markup().join(_pair(result, *pair, list(complete.values()), shown) for pair in pairs)


def _pair(
    result: Result, first: str, second: str, complete: Sequence[Hypothesis], beams: Sequence[Hypothesis]
) -> Markup:
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

    weights = {name: result.weights[name] for name in (first, second)}
    front = pareto_front(complete, weights)
    line = sorted(points(front), key=attrgetter("x"))
    hollow = _near(points(complete), points(beams))
    across, up = (f"{name} loss, {'lower' if weight > 0 else 'higher'} is better"
                  for name, weight in weights.items())  # fmt: skip
    frame = Frame([*points(complete), *hollow], across, up, height=300, whole_x=False)
    ring = {"fill": "none", "stroke": GREEN, "stroke-width": 2, "pointer-events": "none"}
    marks = [
        Mark("dots", hollow, {"fill": "none", "stroke": GREY, "opacity": 0.6}, 2.5),
        Mark("line", line, {"stroke": GREEN, "stroke-dasharray": "4 3"}),
        Mark("dots", points(item for item in complete if item not in front), {"fill": GREY}, 4),
        Mark("dots", line, {"fill": GREEN}, 5),
        Mark("dots", points(item for item in complete if item.text == result.text), ring, 9),
    ]
    note = "Ring: the returned text."
    if outside := len(beams) - len(hollow):
        note += f" {counted(outside, 'beam')} {'is' if outside == 1 else 'are'} outside the plot."
    return figure(f"{first} and {second}", frame, marks, LEGEND, note)


def _near(complete: Sequence[Point], beams: Sequence[Point]) -> list[Point]:
    """The beams that leave the complete texts room: texts of a word or two are far from all others."""
    if len({(point.x, point.y) for point in complete}) < FEWEST:
        return list(beams)
    found = list(beams)
    for of in (attrgetter("x"), attrgetter("y")):
        low, high = min(map(of, complete)), max(map(of, complete))
        room = MARGIN * (high - low)
        found = [point for point in found if low - room <= of(point) <= high + room]
    return found

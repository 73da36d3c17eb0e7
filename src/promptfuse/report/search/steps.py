"""Plots of a search by step: value, terms, gains, exact evaluations and seconds."""

from __future__ import annotations

from itertools import pairwise

from markupsafe import Markup

from promptfuse.report.document import GREEN, GREY, colours_of
from promptfuse.report.plots import Point, Series, bar_plot, line_plot
from promptfuse.search import Hypothesis, Result, Step


def step_plots(result: Result) -> Markup:
    """All plots that there is something to show in."""
    return Markup().join([value_plot(result), terms_plot(result), gains_plot(result), *cost_plots(result)])


def value_plot(result: Result) -> Markup:
    """The objective of the best beam and of the best complete text."""
    steps = result.history
    beams = [_point(step, step.beams[0].value, _text(step.beams[0])) for step in steps if step.beams]
    complete = [_point(step, step.best.value, _text(step.best)) for step in steps if step.best.complete]
    return line_plot(
        "Value by step",
        [Series("best beam", GREY, beams), Series("best complete text", GREEN, complete)],
        "objective, lower is better",
    )


def terms_plot(result: Result) -> Markup:
    """What each term adds to the value of the best text so far."""
    colours = colours_of(result.terms)
    series = []
    for name, weight in result.weights.items():
        losses = [(step, step.best.terms[name]) for step in result.history if name in step.best.terms]
        points = [
            _point(step, weight * loss, f"{name} {loss:.4f} x {weight:g}\n{step.best.text}")
            for step, loss in losses
        ]
        series.append(Series(f"{name} x {weight:.4g}", colours[name], points))
    return line_plot("Terms of the best text so far", series, "weight x loss")


def gains_plot(result: Result) -> Markup:
    """The factors by which the search corrects the gradients' estimates."""
    # Colours are those of all terms, so that a term has one colour on the whole page.
    colours = colours_of(result.terms)
    gains: dict[str, list[Point]] = {}
    for step in result.history:
        for name, gain in step.gains.items():
            gains.setdefault(name, []).append(_point(step, gain, f"{name} {gain:.3f}"))
    series = [Series(name, colours[name], points) for name, points in gains.items()]
    return line_plot("Gain on the gradients' estimates", series, "gain", from_zero=True)


def cost_plots(result: Result) -> tuple[Markup, Markup]:
    """Texts scored exactly and wall time of each step."""
    steps = result.history
    texts = [_point(step, step.proposed, f"{step.proposed:,} texts") for step in steps]
    times = pairwise([0.0, *(step.seconds for step in steps)])
    seconds = [
        _point(step, after - before, f"{after - before:.3f} s")
        for step, (before, after) in zip(steps, times, strict=True)
    ]
    return (
        bar_plot("Texts scored exactly by step", Series("texts scored exactly", "#6f8fb3", texts), "texts"),
        bar_plot("Time by step", Series("wall time", "#b08968", seconds), "seconds"),
    )


def _point(step: Step, value: float, hover: str) -> Point:
    return Point(step.number, value, f"step {step.number}: {hover}")


def _text(item: Hypothesis) -> str:
    return f"{item.value:.4f}\n{item.text}"

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
    beams = [_point(step, step.beams[0].value, step.beams[0]) for step in steps if step.beams]
    complete = [_point(step, step.best.value, step.best) for step in steps if step.best.complete]
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
        points = [
            Point(
                step.number,
                weight * step.best.terms[name],
                f"step {step.number}: {name} {step.best.terms[name]:.4f} x {weight:g}\n{step.best.text}",
            )
            for step in result.history
            if name in step.best.terms
        ]
        series.append(Series(f"{name} x {weight:.4g}", colours[name], points))
    return line_plot("Terms of the best text so far", series, "weight x loss")


def gains_plot(result: Result) -> Markup:
    """The factors by which the search corrects the gradients' estimates."""
    # Colours are those of all terms, so that a term has one colour on the whole page.
    colours = colours_of(result.terms)
    series = [
        Series(
            name,
            colours[name],
            [
                Point(step.number, step.gains[name], f"step {step.number}: {name} {step.gains[name]:.3f}")
                for step in result.history
                if name in step.gains
            ],
        )
        for name in dict.fromkeys(name for step in result.history for name in step.gains)
    ]
    return line_plot("Gain on the gradients' estimates", series, "gain", from_zero=True)


def cost_plots(result: Result) -> tuple[Markup, Markup]:
    """Texts scored exactly and wall time of each step."""
    texts = [
        Point(step.number, step.proposed, f"step {step.number}: {step.proposed:,} texts")
        for step in result.history
    ]
    times = [0.0, *(step.seconds for step in result.history)]
    seconds = [
        Point(number, after - before, f"step {number}: {after - before:.3f} s")
        for number, (before, after) in enumerate(pairwise(times), 1)
    ]
    return (
        bar_plot("Texts scored exactly by step", Series("texts scored exactly", "#6f8fb3", texts), "texts"),
        bar_plot("Time by step", Series("wall time", "#b08968", seconds), "seconds"),
    )


def _point(step: Step, value: float, item: Hypothesis) -> Point:
    return Point(step.number, value, f"step {step.number}: {value:.4f}\n{item.text}")

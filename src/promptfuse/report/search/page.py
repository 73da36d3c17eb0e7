"""One self-contained HTML page: photos, captions, and how the searches got there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from promptfuse.models.images import ImageLike
from promptfuse.report.document import bar, colours_of, counted, data_uri, keys, write_document
from promptfuse.report.search.changes import compared
from promptfuse.report.search.pareto import pareto_plots
from promptfuse.report.search.search_page import front_table
from promptfuse.report.search.steps import terms_plot, value_plot
from promptfuse.report.search.tree import beam_tree
from promptfuse.search import Hypothesis, Result, Step


@dataclass(frozen=True)
class Card:
    """One photo with the results of its searches.

    Attributes:
        title: a heading.
        image: the photo: a path, an address or an open image.
        results: label (``plain``, ``positive``, ...) and result of each search.
    """

    title: str
    image: ImageLike
    results: Sequence[tuple[str, Result]]


def write_page(path: Path, title: str, cards: Sequence[Card], intro: str = "") -> None:
    """Write the page to a temporary name, then rename it, so that no half page is ever seen.

    Raises:
        ConfigError: if the path is a folder or a device.
        OSError: if it cannot be written.
    """
    body = "\n".join(_card(card) for card in cards)
    results = [result for card in cards for _, result in card.results]
    seconds = sum(result.seconds for result in results)
    texts = sum(result.exact_evaluations for result in results)
    names = dict.fromkeys(name for result in results for name in result.terms)
    colours = colours_of(names)
    legend = keys((name, colours[name]) for name in names)
    header = (
        f'<p>{escape(intro)}</p><p class="legend">Losses, weighted; shorter bars are better: {legend}</p>'
    )
    footer = f"{counted(len(results), 'search')} in {seconds:.1f} s; {counted(texts, 'text')} scored exactly."
    write_document(path, title, header, body, footer)


def _card(card: Card) -> str:
    captions = "".join(_caption(label, result) for label, result in card.results)
    traces = "".join(_trace(label, result) for label, result in card.results)
    return (
        f'<article><figure><img alt="{escape(card.title)}" src="{data_uri(card.image)}">'
        f"<figcaption>{escape(card.title)}</figcaption></figure>"
        f'<section class="captions">{captions}</section>'
        f'<section class="traces">{traces}</section></article>'
    )


def _caption(label: str, result: Result) -> str:
    return (
        f'<div class="caption"><span class="label {escape(label)}">{escape(label)}</span>'
        f"<q>{escape(result.text)}</q>{bar(result.terms, result.weights, colours_of(result.terms))}"
        f"<small>value {result.value:.3f} &middot; {counted(result.exact_evaluations, 'text')}, "
        f"{result.seconds:.1f} s{'' if result.complete else ' &middot; not complete'}</small></div>"
    )


def _trace(label: str, result: Result) -> str:
    if not result.history:
        return ""
    rows = "".join(_step(step, result.weights) for step in result.history)
    front = front_table(result, 12)
    if front:
        front = f"<h4>Complete texts that no other one beats in every term</h4>{front}"
    return (
        f"<details><summary>How the search found the {escape(label)} caption</summary>"
        f'<div class="figures">{value_plot(result)}{terms_plot(result)}</div>'
        f"<h4>Which text grew from which</h4>{beam_tree(result, listed=False)}"
        '<h4>Step by step</h4><table class="steps">'
        "<tr><th>step</th><th>beams, best first</th><th>value</th><th>losses</th></tr>"
        f"{rows}</table>{pareto_plots(result)}{front}</details>"
    )


def _step(step: Step, weights: dict[str, float]) -> str:
    rows = []
    shown = step.beams or (step.best,)
    for index, beam in enumerate(shown):
        first = f'<td rowspan="{len(shown)}">{step.number}</td>' if index == 0 else ""
        rows.append(
            f"<tr>{first}<td>{_grown(beam)}</td><td>{beam.value:.3f}</td>"
            f"<td>{bar(beam.terms, weights, colours_of(beam.terms), 160)}</td></tr>"
        )
    return "".join(rows)


def _grown(beam: Hypothesis) -> str:
    """A text with what the step changed in bold."""
    if beam.parent == beam.text:
        return escape(beam.text)
    return "".join(
        f"<b>{escape(piece.text)}</b>" if piece.new else escape(piece.text)
        for piece in compared(beam.parent, beam.text, gone=False)
    )


__all__ = ["Card", "write_page"]

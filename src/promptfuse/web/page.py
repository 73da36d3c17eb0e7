"""One self-contained HTML page: photo, captions, and how the search got there."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from promptfuse.errors import ConfigError
from promptfuse.models import load_image
from promptfuse.search import Hypothesis, Result, Step
from promptfuse.version import __version__

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
COLOURS = {"fluency": "#4c78a8", "image": "#e08a2e", "sentiment": "#b279a2"}
OTHER_COLOUR = "#72716b"


@dataclass(frozen=True)
class Card:
    """One photo with the results of its searches.

    Attributes:
        title: a heading.
        image: the photo, a path or an open image.
        results: label (``plain``, ``positive``, ...) and result of each search.
    """

    title: str
    image: Path | Image.Image
    results: Sequence[tuple[str, Result]]


def write_page(path: Path, title: str, cards: Sequence[Card], intro: str = "") -> None:
    """Write the page to a temporary name, then rename it, so that no half page is ever seen.

    Raises:
        ConfigError: if the path is a folder or a device.
        OSError: if it cannot be written.
    """
    check_target(path)
    body = "\n".join(_card(card) for card in cards)
    seconds = sum(result.seconds for card in cards for _, result in card.results)
    texts = sum(result.exact_evaluations for card in cards for _, result in card.results)
    searches = sum(len(card.results) for card in cards)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{STYLE}</style></head>
<body><header><h1>{escape(title)}</h1><p>{escape(intro)}</p>{_legend(cards)}</header>
<main>{body}</main>
<footer>promptfuse {__version__}. {searches} searches in {seconds:.1f} s;
{texts:,} texts scored exactly.</footer>
</body></html>
"""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=path.name, suffix=".part", delete=False
    ) as stream:
        part = Path(stream.name)
        try:
            stream.write(page)
            stream.flush()
            part.chmod(0o644)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """Raise ``ConfigError`` where no page can be written, before any work is done for it."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is no plain file; give a file name such as trace.html")
    if not path.resolve().parent.is_dir():
        raise ConfigError(f"{path}: its folder does not exist; create it first")


def _legend(cards: Sequence[Card]) -> str:
    names = dict.fromkeys(name for card in cards for _, result in card.results for name in result.terms)
    items = "".join(
        f'<span class="key"><i style="background:{_colour(name)}"></i>{escape(name)}</span>' for name in names
    )
    return f'<p class="legend">Losses, weighted; shorter bars are better: {items}</p>'


def _colour(name: str) -> str:
    return COLOURS.get(name, OTHER_COLOUR)


def _card(card: Card) -> str:
    captions = "".join(_caption(label, result) for label, result in card.results)
    traces = "".join(_trace(label, result) for label, result in card.results)
    return (
        f'<article><figure><img alt="{escape(card.title)}" src="{_data_uri(card.image)}">'
        f"<figcaption>{escape(card.title)}</figcaption></figure>"
        f'<section class="captions">{captions}</section>'
        f'<section class="traces">{traces}</section></article>'
    )


def _data_uri(image: Path | Image.Image, side: int = 420) -> str:
    photo = load_image(image)
    photo.thumbnail((side, side))
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _caption(label: str, result: Result) -> str:
    return (
        f'<div class="caption"><span class="label {escape(label)}">{escape(label)}</span>'
        f"<q>{escape(result.text)}</q>{_bar(result.terms, result.weights)}"
        f"<small>value {result.value:.3f} &middot; {result.exact_evaluations} texts, "
        f"{result.seconds:.1f} s</small></div>"
    )


def _bar(terms: dict[str, float], weights: dict[str, float]) -> str:
    """The weighted losses side by side; one unit of the objective is 12 pixels."""
    parts = "".join(
        f'<i style="width:{max(0.0, 12 * weights[name] * loss):.0f}px;background:{_colour(name)}" '
        f'title="{escape(name)}: {weights[name]:g} x {loss:.3f}"></i>'
        for name, loss in terms.items()
    )
    return f'<span class="bar">{parts}</span>'


def _trace(label: str, result: Result) -> str:
    rows = "".join(_step(step, result.weights) for step in result.history)
    front = "".join(
        f"<tr><td>{escape(item.text)}</td>{''.join(f'<td>{value:.3f}</td>' for value in item.terms.values())}"
        f"<td>{item.value:.3f}</td></tr>"
        for item in result.pareto_front[:12]
    )
    heads = "".join(f"<th>{escape(name)}</th>" for name in result.terms)
    return (
        f"<details><summary>How the search found the {escape(label)} caption</summary>"
        f"{_curve(result)}"
        '<table class="steps"><tr><th>step</th><th>beams, best first</th><th>value</th><th>losses</th></tr>'
        f"{rows}</table>"
        f"<h4>Complete texts that no other one beats in every term</h4>"
        f'<table class="front"><tr><th>text</th>{heads}<th>value</th></tr>{front}</table></details>'
    )


def _step(step: Step, weights: dict[str, float]) -> str:
    rows = []
    shown = step.beams or (step.best,)
    for index, beam in enumerate(shown):
        first = f'<td rowspan="{len(shown)}">{step.number}</td>' if index == 0 else ""
        rows.append(
            f"<tr>{first}<td>{_grown(beam)}</td><td>{beam.value:.3f}</td>"
            f"<td>{_bar(beam.terms, weights)}</td></tr>"
        )
    return "".join(rows)


def _grown(beam: Hypothesis) -> str:
    """A text with what the step added in bold."""
    if beam.parent and beam.text.startswith(beam.parent):
        return f"{escape(beam.parent)}<b>{escape(beam.text[len(beam.parent) :])}</b>"
    return escape(beam.text)


def _curve(result: Result) -> str:
    """Value of the best beam and of the best complete text by step."""
    steps = result.history
    if len(steps) < 2:
        return ""
    beams = [(step.number, step.beams[0].value) for step in steps if step.beams]
    complete = [(step.number, step.best.value) for step in steps if step.best.complete]
    values = [value for _, value in beams + complete]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    width, height, left, top = 560, 130, 46, 10

    def place(number: int, value: float) -> tuple[float, float]:
        x = left + (number - 1) / max(1, len(steps) - 1) * (width - left - 10)
        return x, top + (high - value) / span * (height - 2 * top - 14)

    def line(points: Sequence[tuple[int, float]], colour: str) -> str:
        spots = [place(*point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in spots)
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'

    bottom = height - 4
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Objective by step">'
        f'<text x="{left - 6}" y="{top + 4}" text-anchor="end">{high:.2f}</text>'
        f'<text x="{left - 6}" y="{height - top - 12}" text-anchor="end">{low:.2f}</text>'
        f'<text x="{left}" y="{bottom}">step 1</text>'
        f'<text x="{width - 10}" y="{bottom}" text-anchor="end">step {len(steps)}</text>'
        f"{line(beams, '#8b97a5')}{line(complete, '#3f8f5b')}</svg>"
        '<p class="legend"><span class="key"><i style="background:#8b97a5"></i>best unfinished text</span>'
        '<span class="key"><i style="background:#3f8f5b"></i>best complete text</span></p>'
    )

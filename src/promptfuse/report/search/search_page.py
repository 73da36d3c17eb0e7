"""One self-contained HTML page about one search."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from promptfuse.report.document import bar, colours_of, counted, data_uri, keys, write_document
from promptfuse.report.search.pareto import pareto_plots
from promptfuse.report.search.steps import step_plots
from promptfuse.report.search.tree import beam_tree
from promptfuse.search import Result

MOST_TEXTS = 40
"""Rows of the table of complete texts."""


def write_search_page(
    path: Path, name: str, result: Result, photos: Sequence[str | Path] = (), settings: str = ""
) -> None:
    """Write the page of a search: its result, its beams as a tree, its terms by step, its Pareto front.

    Args:
        path: the file.
        name: what the search is called.
        result: what it gave.
        photos: those that its terms judge by.
        settings: its configuration, shown as it stands.

    Raises:
        ConfigError: if the path is a folder or a device.
        ImageError: if a photo cannot be read any more.
        OSError: if it cannot be written.
    """
    colours = colours_of(result.terms)
    legend = keys((term, colours[term]) for term in result.terms)
    body = (
        _result(result, photos, colours)
        + _section("Which text grew from which", beam_tree(result) if result.history else "")
        + _section("Step by step", step_plots(result) if result.history else "")
        + _section("Terms against each other", pareto_plots(result))
        + _section("Complete texts that no other one beats in every term", front_table(result))
        + _settings(result, settings)
    )
    footer = (
        f"{counted(len(result.history), 'step')} in {result.seconds:.1f} s; "
        f"{counted(result.exact_evaluations, 'text')} scored exactly; seed {result.seed}."
    )
    header = (
        f"<p>{escape(name)}: {escape(_how(result))}</p>"
        f'<p class="legend">Losses, weighted; shorter bars are better: {legend}</p>'
    )
    write_document(path, "How promptfuse found this text", header, body, footer)


def front_table(result: Result, most: int = MOST_TEXTS) -> str:
    """The Pareto front as a table, best value first."""
    if not result.pareto_front:
        return ""
    heads = "".join(f"<th>{escape(name)}</th>" for name in result.terms)
    rows = "".join(
        f"<tr{' class=won' if item.text == result.text else ''}><td>{escape(item.text)}</td>"
        f"{''.join(f'<td>{loss:.3f}</td>' for loss in item.terms.values())}<td>{item.value:.3f}</td></tr>"
        for item in result.pareto_front[:most]
    )
    more = len(result.pareto_front) - most
    note = f'<p class="legend">and {more} more</p>' if more > 0 else ""
    table = f'<table class="front"><tr><th>text</th>{heads}<th>value</th></tr>{rows}</table>'
    return f'<div class="wide">{table}</div>{note}'


def _result(result: Result, photos: Sequence[str | Path], colours: dict[str, str]) -> str:
    figures = "".join(
        f'<figure><img alt="{escape(Path(photo).stem)}" src="{data_uri(photo)}">'
        f"<figcaption>{escape(Path(photo).name)}</figcaption></figure>"
        for photo in photos
    )
    kind = "complete" if result.complete else "not complete: the search ended before it did"
    losses = ", ".join(
        f"{escape(name)} {loss:.3f} x {result.weights[name]:.4g}" for name, loss in result.terms.items()
    )
    weighted = result.config["scalarisation"] == "weighted"
    value = f"value {result.value:.3f}" + (" = " if weighted else f" ({result.config['scalarisation']}); ")
    said = "".join(f'<p class="legend">{escape(line)}</p>' for line in result.said())
    text = (
        f'<section class="captions"><div class="caption"><span class="label">{kind}</span>'
        f"<q>{escape(result.text)}</q>{bar(result.terms, result.weights, colours)}"
        f"<small>{value}{losses}</small>{said}</div></section>"
    )
    photos_part = f'<div class="photos">{figures}</div>' if figures else ""
    return f'<article class="{"" if figures else "plain"}">{photos_part}{text}</article>'


def _how(result: Result) -> str:
    """Method and strategy in a few words."""
    method, strategy = result.config["method"], result.config["strategy"]
    names = [part["name"] for part in method.get("methods", [method])]
    width = f" of width {strategy['width']}" if strategy["width"] > 1 else ""
    return f"{', then '.join(names)}; {strategy['name']}{width}"


def _section(heading: str, inside: str) -> str:
    return f'<section class="part"><h2>{escape(heading)}</h2>{inside}</section>' if inside else ""


def _settings(result: Result, settings: str) -> str:
    models = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(model['name'])}</td><td>{escape(model['identity'])}</td></tr>"
        for name, model in result.models.items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    shown = settings or json.dumps(result.config, indent=1, ensure_ascii=False)
    return (
        '<section class="part"><details><summary>Settings, models and versions</summary>'
        '<div class="wide"><table><tr><th>term</th><th>model</th><th>identity</th></tr>'
        f"{models}</table></div>"
        f'<p class="legend">{escape(versions)}</p><pre>{escape(shown)}</pre></details></section>'
    )

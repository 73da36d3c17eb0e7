"""Pages as single files that work offline: their templates, and what all of them share.

Templates (``templates/``) write HTML and escape every value; Python prepares the values. Line breaks and
indentation in a template are layout only and do not reach the page.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.ext import Extension
from markupsafe import Markup

from promptfuse._utils.atomic_files import atomic_write, check_target
from promptfuse.models.images import ImageLike, load_image
from promptfuse.version import __version__

FOLDER = Path(__file__).parent
KNOWN_COLOURS = {"fluency": "#4c78a8", "image": "#e08a2e", "sentiment": "#b279a2"}
OTHER_COLOURS = ("#2f9c9c", "#d1605e", "#9a8a1f", "#7d6bc4", "#9d755d", "#72716b")
GREEN = "#3f8f5b"
"""The text that is returned, and complete texts."""
GREY = "#8b97a5"
"""All others."""
UNIT = 12
"""Pixels that one unit of the objective takes in a bar of losses."""


class Key(NamedTuple):
    """An entry of a legend; ``shape`` is ``line``, ``hollow`` or nothing for a filled square."""

    name: str
    colour: str
    shape: str = ""


def write_document(path: Path, template: str, **values: Any) -> None:
    """Render a page and write it, whole or not at all.

    Args:
        path: the file.
        template: a file of ``templates/`` that extends ``base.html``.
        values: what the template shows; ``title`` is the page's title and heading.

    Raises:
        ConfigError: if the path is a folder, a device, or a file that promptfuse did not write.
        OSError: if it cannot be written.
    """
    check_target(path)
    atomic_write(path, render(template, **values))


def render(template: str, **values: Any) -> Markup:
    """A template filled with values; what is not ``Markup`` already is escaped."""
    return Markup(_environment().get_template(template).render(values))


def static(name: str) -> Markup:
    """The text of a style sheet or script of ``static/``."""
    return Markup((FOLDER / "static" / name).read_text(encoding="utf-8"))


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each term; the usual terms have the same one on every page."""
    others = [name for name in dict.fromkeys(names) if name not in KNOWN_COLOURS]
    found = {name: OTHER_COLOURS[index % len(OTHER_COLOURS)] for index, name in enumerate(others)}
    return KNOWN_COLOURS | found


def counted(count: int, thing: str) -> str:
    """A number of things: ``1 photo``, ``2 photos``."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}{'es' if thing.endswith('ch') else 's'}"


def data_uri(image: ImageLike, side: int = 420) -> str:
    """A photo as part of the page, at most ``side`` pixels wide and high."""
    photo = load_image(image)
    photo.thumbnail((side, side))
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def bar(
    terms: Mapping[str, float], weights: Mapping[str, float], widest: float = 640
) -> list[tuple[float, str, str]]:
    """The weighted losses side by side, at most ``widest`` pixels: width, colour and hover text of each."""
    colours = colours_of(terms)
    widths = {name: max(0.0, UNIT * weights[name] * loss) for name, loss in terms.items()}
    shrink = min(1.0, widest / max(1.0, sum(widths.values())))
    return [
        (shrink * widths[name], colours[name], f"{name}: {weights[name]:g} x {loss:.3f}")
        for name, loss in terms.items()
    ]


class _Layout(Extension):
    """Takes line breaks and indentation beside tags out of templates."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return re.sub(r"(?<=[>}])\s*\n\s*|\s*\n\s*(?=[<{])", "", source)


@lru_cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=[_Layout],
    )
    found.policies["json.dumps_kwargs"] = {
        "ensure_ascii": False, "separators": (",", ":"), "allow_nan": False,
    }  # fmt: skip
    found.globals |= {"static": static, "bar": bar, "version": __version__, "data_uri": data_uri}
    found.filters |= {
        "px": "{:.1f}".format,
        "g": "{:g}".format,
        "fixed": lambda value, digits: f"{value:,.{digits}f}",
        "counted": counted,
        "pretty": lambda value: json.dumps(value, indent=1, ensure_ascii=False),
    }
    return found

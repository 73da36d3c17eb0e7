"""A self-contained page: its frame, its colours, and how it gets onto the disk."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from pathlib import Path

from promptfuse._utils.atomic_files import atomic_write, check_target
from promptfuse.models.images import ImageLike, load_image
from promptfuse.version import __version__

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")

KNOWN_COLOURS = {"fluency": "#4c78a8", "image": "#e08a2e", "sentiment": "#b279a2"}
OTHER_COLOURS = ("#2f9c9c", "#d1605e", "#9a8a1f", "#7d6bc4", "#9d755d", "#72716b")
GREEN = "#3f8f5b"
"""What won: the text that is returned, and complete texts."""
GREY = "#8b97a5"
"""What did not."""


def write_document(path: Path, title: str, header: str, body: str, footer: str, *, style: str = "") -> None:
    """Write a page whole.

    Args:
        path: the file.
        title: its title and heading.
        header: HTML below the heading.
        body: HTML of the page.
        footer: HTML at its end.
        style: CSS that this page has beside that of all pages.

    Raises:
        ConfigError: if the path is a folder or a device.
        OSError: if it cannot be written.
    """
    check_target(path)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="promptfuse {__version__}">
<title>{escape(title)}</title><style>{STYLE}{style}</style></head>
<body><header><h1>{escape(title)}</h1>{header}</header>
<main>{body}</main>
<footer>promptfuse {__version__}. {footer}</footer>
</body></html>
"""
    atomic_write(path, page)


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each term, the same on every page for the usual ones."""
    others = [name for name in dict.fromkeys(names) if name not in KNOWN_COLOURS]
    found = {name: OTHER_COLOURS[index % len(OTHER_COLOURS)] for index, name in enumerate(others)}
    return KNOWN_COLOURS | found


def keys(pairs: Iterable[tuple[str, str]]) -> str:
    """A legend's entries from names and colours."""
    return "".join(
        f'<span class="key"><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in pairs
    )


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
    terms: dict[str, float], weights: dict[str, float], colours: dict[str, str], widest: float = 640
) -> str:
    """The weighted losses side by side; one unit of the objective is 12 pixels, and the width has an end."""
    widths = {name: max(0.0, 12 * weights[name] * loss) for name, loss in terms.items()}
    shrink = min(1.0, widest / max(1.0, sum(widths.values())))
    parts = "".join(
        f'<i style="width:{shrink * widths[name]:.0f}px;background:{colours[name]}" '
        f'title="{escape(name)}: {weights[name]:g} x {loss:.3f}"></i>'
        for name, loss in terms.items()
    )
    return f'<span class="bar">{parts}</span>'

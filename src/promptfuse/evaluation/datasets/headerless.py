"""Tables without a header: Flickr's tokens and Conceptual Captions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.texts import numbered_lines

_TOKEN = re.compile(r"(?P<image>[^\t]*\.\w{2,5}(?:\.\d)?)#\d+\t(?P<caption>.*)", re.DOTALL)
"""``1000092795.jpg#0	Two young guys ...``, of Flickr8k.token.txt and results_20130124.token."""

_LINK = re.compile(r"(?P<caption>[^\t]+)\t(?P<image>https?://\S+)\s*", re.DOTALL)
"""``a very typical bus station	http://...``, of Conceptual Captions."""

_LOOKED_AT = 3
"""Lines that tell the format."""


def headerless_records(text: str) -> Iterator[tuple[str, dict[str, Any]]] | None:
    """The rows of a table of a known form without a header; None if it is of none.

    Raises:
        ConfigError: if a later line has another form.
    """
    first = [line for _, line in islice(numbered_lines(text), _LOOKED_AT)]
    form = next((one for one in (_TOKEN, _LINK) if first and all(map(one.fullmatch, first))), None)
    return None if form is None else _records(text, form)


def _records(text: str, form: re.Pattern[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in numbered_lines(text):
        match = form.fullmatch(line)
        if match is None:
            raise ConfigError(f"line {number}: not of the form of the lines before; correct it")
        image = match["image"]
        # Flickr8k has a photo whose name is followed by a figure: 2258277193_586949ec62.jpg.1.
        yield (
            f"line {number}",
            {"image": re.sub(r"(\.\w{2,5})\.\d$", r"\1", image), "caption": match["caption"]},
        )

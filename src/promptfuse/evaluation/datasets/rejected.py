"""Captions that those who gathered them do not count: VizWiz marks spam and texts that were only clicked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from promptfuse.errors import ConfigError

FLAGS = ("is_rejected", "is_precanned")
"""VizWiz-Captions: spam, and the offered text for photos on which nothing can be seen. Its own evaluation
leaves both out."""


class Rejected:
    """Leaves marked captions out, and counts them.

    Args:
        keep: whether they are kept all the same.
    """

    def __init__(self, keep: bool = False) -> None:
        self.keep = keep
        self.counts = dict.fromkeys(FLAGS, 0)
        self.total = 0

    def drops(self, fields: Mapping[str, Any]) -> bool:
        """Whether a caption with these fields is left out."""
        if fields.keys().isdisjoint(FLAGS):
            return False
        flags = [name for name in FLAGS if name in fields and _is_set(fields[name])]
        for name in flags:
            self.counts[name] += 1
        self.total += bool(flags)
        return bool(flags) and not self.keep

    def without(self, captions: list[Any], fields: Mapping[str, Any], place: str) -> list[Any]:
        """The captions of a list that stay, where its row has lists of marks beside it, one a caption.

        Args:
            captions: the list.
            fields: of the row; a mark that is no list is of the row, not of one caption.
            place: of the row, for messages.

        Raises:
            ConfigError: if there are more or fewer marks than captions.
        """
        given = {name: _several(fields[name], f"{place}, {name}") for name in FLAGS if name in fields}
        marks = {name: several for name, several in given.items() if several is not None}
        for name, several in marks.items():
            if len(several) != len(captions):
                raise ConfigError(
                    f"{place}, {name}: {len(several)} marks for {len(captions)} captions; give one a caption"
                )
        return [
            caption
            for index, caption in enumerate(captions)
            if not (marks and self.drops({name: several[index] for name, several in marks.items()}))
        ]

    def problems(self) -> list[str]:
        """A line that says how many there are; none if there are none."""
        if not self.total:
            return []
        marks = ", ".join(f"{name} {count:,}" for name, count in self.counts.items() if count)
        captions = (
            f"{self.total:,} caption{'s are' if self.total > 1 else ' is'} marked as rejected ({marks})"
        )
        return [
            f"{captions} and kept" if self.keep else f"{captions} and left out; --keep-rejected keeps them"
        ]


def _several(value: Any, place: str) -> list[Any] | None:
    """The marks of several captions, which a CSV file has as JSON; None where there is one for the row."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value.lower())
        except (ValueError, RecursionError):
            raise ConfigError(f"{place}: {value!r:.60} is no list in JSON; correct it") from None
    return value if isinstance(value, list) else None


def _is_set(value: Any) -> bool:
    """Whether a mark is set; a CSV file has it as a word, and data frames as a fraction or NaN."""
    if isinstance(value, list):
        return False  # Of several captions; see ``without``.
    if isinstance(value, str):
        value = value.strip().lower()
        if value in ("true", "yes", "t", "y"):
            return True
        try:
            value = float(value)
        except ValueError:
            return False
    return bool(value) and not (isinstance(value, float) and math.isnan(value))

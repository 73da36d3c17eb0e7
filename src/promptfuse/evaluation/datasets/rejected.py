"""Captions that those who gathered them do not count: VizWiz marks spam and texts that were only clicked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def _is_set(value: Any) -> bool:
    """Whether a mark is set; a CSV file has it as a word."""
    return value.strip().lower() in ("1", "true", "yes") if isinstance(value, str) else bool(value)

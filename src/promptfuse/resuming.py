"""What a run folder may be resumed with: the settings that it began with."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from promptfuse.errors import ConfigError


def require_same_values(
    folder: Path, before: dict[str, Any], now: dict[str, Any], free: Container[str] = ()
) -> None:
    """Make sure that a run goes on as it began.

    Args:
        folder: the run folder, for the message.
        before: nested settings that the folder holds.
        now: those that it would go on with.
        free: fields, by the last part of their dotted name, that may have other values.

    Raises:
        ConfigError: if another field differs; the message names it.
    """
    was, given = dict(_leaves(before)), dict(_leaves(now))
    for name in [*given, *was]:
        if name.rpartition(".")[2] not in free and was.get(name) != given.get(name):
            raise ConfigError(
                f"run folder {folder}: it holds a run with {name} {was.get(name)!r}, "
                f"not {given.get(name)!r}; give another folder, or the settings of that run"
            )


def _leaves(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested fields by dotted keys; lists count as values."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, values

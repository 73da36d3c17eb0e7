"""What options of several commands have in common."""

from __future__ import annotations

from collections.abc import Iterable

import typer


def whole(value: str) -> int:
    """Parse a whole number; the message names what was given."""
    try:
        return int(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a whole number") from None


def listed(values: Iterable[str]) -> list[str]:
    """The names of a repeatable option, each value one or several with commas between."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]

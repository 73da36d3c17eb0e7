"""Kinds of values that people give in Python, checked where they come in, with one line for a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from promptfuse.errors import ConfigError


def whole_number(value: Any, name: str, least: int = 1) -> int:
    """A whole number, of any type that counts.

    Args:
        value: what was given.
        name: what errors call it.
        least: the smallest that is allowed.

    Raises:
        ConfigError: if it is none, or smaller.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigError(f"{name}: {value!r:.60} is not a whole number; give {least} or more")
    if value < least:
        few = "negative" if least == 0 else "too few"
        raise ConfigError(f"{name}: {value} is {few}; give {least} or more")
    return int(value)


def number(value: Any, name: str) -> float:
    """A number with or without a fraction.

    Args:
        value: what was given.
        name: what errors call it.

    Raises:
        ConfigError: if it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(f"{name}: {value!r:.60} is not a number; give e.g. 3.5")
    return float(value)


def some_text(value: Any, name: str) -> str:
    """A text, which may be empty.

    Args:
        value: what was given.
        name: what errors call it.

    Raises:
        ConfigError: if it is none.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{name}: {value!r:.60} is not a text; put it in quotes")
    return value


def named_numbers(value: Any, name: str) -> dict[str, float]:
    """Numbers by name; None stands for none.

    Args:
        value: what was given.
        name: what errors call it.

    Raises:
        ConfigError: if it is no mapping, or one of its values is no number.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}: {value!r:.60} is not a mapping; give e.g. {{'image': 3.5}}")
    return {key: number(one, f"{name}: {key}") for key, one in value.items()}


def functions(value: Any, name: str) -> tuple[Callable[..., Any], ...]:
    """Functions in a list; one alone stands for itself and None for none.

    Args:
        value: what was given.
        name: what errors call it.

    Raises:
        ConfigError: if something else is among them.
    """
    if value is None:
        return ()
    several = tuple(value) if isinstance(value, Iterable) and not callable(value) else (value,)
    for one in several:
        if not callable(one):
            raise ConfigError(f"{name}: {one!r:.60} cannot be called; give functions")
    return several

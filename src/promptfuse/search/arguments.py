"""What a search checks of its arguments before it looks into them."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, get_args

from promptfuse.errors import ConfigError


def expect_object(value: Any, name: str, kinds: type | UnionType, example: type) -> None:
    """Raise ``ConfigError`` for an argument that is no object of one of these classes.

    Args:
        value: the argument; None is one that is not given.
        name: its name.
        kinds: the classes.
        example: one of them, for the message.
    """
    if value is None or isinstance(value, kinds):
        return
    classes: tuple[type, ...] = get_args(kinds) or (kinds,)
    given = value.__name__ if isinstance(value, type) else value
    meant = next(
        (one for one in classes if isinstance(given, str) and one.__name__.casefold() == given.casefold()),
        None,
    )
    what = f"the class {given}" if isinstance(value, type) else f"{value!r:.60}"
    if meant is not None:
        raise ConfigError(f"{name} must be an object, not {what}; write {name}=pf.{meant.__name__}()")
    raise ConfigError(f"{name} must be an object such as pf.{example.__name__}(), not {what}; give one")


def check_weights(weights: Any) -> None:
    """Raise ``ConfigError`` for weights that are neither a word nor numbers by term."""
    if not isinstance(weights, str | Mapping):
        raise ConfigError(f"weights: {weights!r:.60} are none; give 'given', 'auto', or numbers by term")
    for name, number in weights.items() if isinstance(weights, Mapping) else ():
        if isinstance(number, bool) or not hasattr(number, "__float__"):
            raise ConfigError(f"weights: {number!r:.60} for {name} is no number; give one above 0")

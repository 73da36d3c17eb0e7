"""What a search checks of its arguments before it looks into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from promptfuse.errors import ConfigError


def expect_object(
    value: Any, name: str, kind: type, example: type, registered: Mapping[str, type] | None = None
) -> None:
    """Raise ``ConfigError`` for an argument that is not an object of a class.

    Args:
        value: the argument; None if it is not given.
        name: its name.
        kind: the class.
        example: a class to name in the message.
        registered: subclasses by name, of which the message names the one that was probably meant.
    """
    if value is None or isinstance(value, kind):
        return
    given = value.__name__ if isinstance(value, type) else value
    known = [one.__name__ for one in (registered or {kind.__name__: kind}).values()]
    meant = next(
        (one for one in known if isinstance(given, str) and one.casefold() == given.casefold()), None
    )
    what = f"the class {given}" if isinstance(value, type) else f"{value!r:.60}"
    if meant is not None:
        raise ConfigError(f"{name} must be an object, not {what}; write {name}=pf.{meant}()")
    raise ConfigError(f"{name} must be an object such as pf.{example.__name__}(), not {what}; give one")


def check_switches(**switches: Any) -> None:
    """Raise ``ConfigError`` for a switch that is neither True nor False."""
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{name}: {value!r:.60} is neither True nor False; give one")


def check_weights(weights: Any) -> None:
    """Raise ``ConfigError`` for weights that are neither a word nor numbers by term."""
    if not isinstance(weights, str | Mapping):
        raise ConfigError(
            f"weights: {weights!r:.60} are not weights; give 'given', 'auto', or numbers by term"
        )
    for name, number in weights.items() if isinstance(weights, Mapping) else ():
        if isinstance(number, bool) or not (hasattr(number, "__float__") or isinstance(number, str)):
            raise ConfigError(f"weights: {number!r:.60} for {name} is not a number; give one above 0")


def describe_settings(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass of settings, as plain values, with its class's name.

    Raises:
        ConfigError: if it is not a dataclass.
    """
    if not is_dataclass(settings) or isinstance(settings, type):
        raise ConfigError(
            f"{type(settings).__name__} is not a dataclass; put @dataclass(frozen=True) over it"
        )
    return {"name": type(settings).__name__, **asdict(settings)}

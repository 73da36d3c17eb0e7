"""Checks of the values that callers pass in: a wrong one raises an error of one line that names it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from promptfuse.errors import ConfigError


def whole_number(value: Any, name: str, least: int = 1) -> int:
    """Check a whole number of any integer type, such as numpy's.

    Args:
        value: the value.
        name: the name of the argument, for the error message.
        least: the smallest value allowed.

    Raises:
        ConfigError: if it is not a whole number, or is below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigError(f"{name}: {value!r:.60} is not a whole number; give {least} or more")
    if value < least:
        raise ConfigError(f"{name}: must be at least {least}, got {value}")
    return int(value)


def number(value: Any, name: str) -> float:
    """Check a real number.

    Args:
        value: the value.
        name: the name of the argument, for the error message.

    Raises:
        ConfigError: if it is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(f"{name}: {value!r:.60} is not a number; give e.g. 3.5")
    return float(value)


def some_text(value: Any, name: str) -> str:
    """Check a text, which may be empty.

    Args:
        value: the value.
        name: the name of the argument, for the error message.

    Raises:
        ConfigError: if it is not a text.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{name}: {value!r:.60} is not a text; put it in quotes")
    return value


def weight_or_factor(value: Any, name: str) -> float | str:
    """Check a weight: a number, or ``auto`` or ``2x``, a factor on the automatic weight.

    Args:
        value: the weight.
        name: its name, for the error message.

    Returns:
        The number; a factor as text.

    Raises:
        ConfigError: if it is neither.
    """
    if not isinstance(value, str):
        return number(value, name)
    try:
        return float(value)
    except ValueError:
        factor(value, name)
        return value


def factor(value: float | str, name: str) -> float:
    """A factor on an automatic weight: ``2``, ``2x`` or ``auto``, which is ``1x``.

    Args:
        value: the factor.
        name: the name of the weight, for the error message.

    Raises:
        ConfigError: if it is none of these, or not above 0.
    """
    text = str(value).strip().lower()
    try:
        found = 1.0 if text == "auto" else float(text.removesuffix("x"))
    except ValueError:
        raise ConfigError(f"{name}: {value!r:.60} is not a number; give e.g. 3.5, auto or 2x") from None
    if not (found > 0 and math.isfinite(found)):
        raise ConfigError(f"{name}: {value} must be above 0")
    return found


def named_weights(value: Any, name: str) -> dict[str, float | str]:
    """Check a mapping from names to weights, see ``weight_or_factor``.

    Args:
        value: the mapping; None is read as an empty one.
        name: the name of the argument, for the error message.

    Raises:
        ConfigError: if it is not a mapping, or one of its values is not a weight.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}: {value!r:.60} is not a mapping; give e.g. {{'image': 3.5}}")
    return {key: weight_or_factor(one, f"{name}: {key}") for key, one in value.items()}


def functions(value: Any, name: str) -> tuple[Callable[..., Any], ...]:
    """Check one function or several.

    Args:
        value: a function, an iterable of functions, or None for no function.
        name: the name of the argument, for the error message.

    Raises:
        ConfigError: if one of them cannot be called.
    """
    if value is None:
        return ()
    several = tuple(value) if isinstance(value, Iterable) and not callable(value) else (value,)
    for one in several:
        if not callable(one):
            raise ConfigError(f"{name}: {one!r:.60} cannot be called; give functions")
    return several

"""What pytest's option ``--jaxtyping-packages`` checks functions with: beartype, of tensors alone.

Other annotations are mypy's: protocols and names of types alone cannot be checked while a program runs, and
some tests hand wrong values on purpose, to see the error that users get.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def beartype_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have calls checked by beartype, with all annotations but those of tensors' shapes taken off."""
    annotations = function.__annotations__
    function.__annotations__ = {
        name: annotation if _has_shape(annotation) else Any for name, annotation in annotations.items()
    }
    checked: Callable[..., Any] = beartype(function)
    return checked


def _has_shape(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return any(map(_has_shape, get_args(annotation)))

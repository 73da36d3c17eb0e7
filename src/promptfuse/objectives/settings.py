"""Hints for the constructors of terms: what YAML files give where it is not the Python value itself.

A term's settings in a file are the parameters of its constructor. Plain types need nothing: a model's class
stands for the name of a model of the file, a function for its import path, a sequence for a list. A term may
have a static method ``check_settings``, which takes the settings as keyword arguments and raises a
``ConfigError`` if they do not go together, before any model is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from promptfuse.models import Model
from promptfuse.models.images import ImageLike


@dataclass(frozen=True, init=False)
class OfKind:
    """Marks a parameter that takes a model of one of these kinds, whatever its static type."""

    kinds: tuple[type[Model], ...]

    def __init__(self, *kinds: type[Model]) -> None:
        object.__setattr__(self, "kinds", kinds)


@dataclass(frozen=True)
class LabelOf:
    """Marks a parameter that is a label of the model that another parameter takes."""

    model: str


@dataclass(frozen=True)
class Mark:
    """Marks a parameter by what a file has for it."""

    name: str


PHOTOS = Mark("paths or addresses of photos, one or several, relative to the file")
TEXTS = Mark("texts, one or several, none blank")
FILE = Mark("the path of a file, relative to the file")
TEXT_OR_FILE = Mark("a text, or @FILE with the text, relative to the file")

TextOrFile: TypeAlias = Annotated[str, TEXT_OR_FILE]
"""A text; a configuration file may have ``@FILE`` for it."""

Texts: TypeAlias = Annotated[str | Sequence[str], TEXTS]
"""One text or several."""

if TYPE_CHECKING:
    Photos: TypeAlias = ImageLike | Sequence[ImageLike]
    """One photo or several: paths, addresses or open images."""
else:
    Photos = Annotated[Any, PHOTOS]

"""What the terms check of their arguments."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

from PIL import Image

from promptfuse.errors import ConfigError, ModelError, TextError
from promptfuse.models import Model, load_image
from promptfuse.models.images import ImageLike


def require_model_kind(model: Any, term: str, *kinds: type[Model]) -> Model:
    """The model, if it is of one of the kinds; else a ``ModelError``."""
    if not isinstance(model, Model):
        loaded = f"load_model({model!r})" if isinstance(model, str | PathLike) else "load_model(...)"
        raise ModelError(f"{term} needs a model that is loaded, not {_shown(model)}; write {loaded}")
    if not isinstance(model, kinds):
        names = " or ".join(kind.kind for kind in kinds)
        raise ModelError(f"{term} needs a model of kind {names}; {model.name} is of kind {model.kind}")
    return model


def _shown(value: object) -> str:
    """A value in a message: short, whatever it is."""
    return repr(value) if isinstance(value, str | PathLike) else f"an object of {type(value).__name__}"


def read_photos(image: ImageLike | Sequence[ImageLike]) -> tuple[list[Image.Image], list[str]]:
    """One photo or several, and hashes of them, the first 16 hexadecimal digits of SHA-256.

    Raises:
        ImageError: if a photo cannot be read.
        ConfigError: if there are none.
    """
    # An array of pixels is one photo, though it could be taken row by row.
    one = isinstance(image, str | PathLike | Image.Image | Mapping) or getattr(image, "ndim", 0) in (2, 3)
    several: list[Any] = [image] if one or not isinstance(image, Iterable) else list(image)
    photos = [load_image(each) for each in several]
    if not photos:
        raise ConfigError("image: none given; give at least one")
    digests = [hashlib.sha256(repr(photo.size).encode() + photo.tobytes()) for photo in photos]
    return photos, [digest.hexdigest()[:16] for digest in digests]


def check_unicode(text: str, what: str) -> None:
    """Raise a ``TextError`` for half a character, which no tokenizer reads and no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(f"{what} {text!r:.60} is not valid Unicode ({error.reason}); correct it") from None


def check_texts(texts: Sequence[str]) -> None:
    """Raise a ``TextError`` for what is no list of texts, such as one text, which is a list of letters."""
    if isinstance(texts, str):
        raise TextError(f"{texts!r:.60} is one text; give a list of texts")
    for text in texts:
        if not isinstance(text, str):
            raise TextError(f"{text!r:.60} is not a text; give a list of strings")
        check_unicode(text, "text")


def read_texts(text: str | Sequence[str], what: str) -> list[str]:
    """One text or several as a list.

    Raises:
        TextError: if one is blank.
        ConfigError: if there are none.
    """
    texts = [text] if isinstance(text, str) else list(text) if isinstance(text, Iterable) else [text]
    if not texts:
        raise ConfigError(f"{what}: none given; give at least one")
    for one in texts:
        if not isinstance(one, str):
            raise ConfigError(f"{what}: {one!r:.60} is not a text; give a string, or several")
        if not one.strip():
            raise TextError(f"{what} {one!r} is empty; give at least one word")
        check_unicode(one, what)
    return texts

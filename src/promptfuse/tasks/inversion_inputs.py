"""What texts are searched for: embeddings of texts, of photos, or given as numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.errors import ConfigError, ImageError, PromptfuseError, TextError
from promptfuse.models import ImageTextModel
from promptfuse.models.images import ImageLike
from promptfuse.objectives.checks import read_photos
from promptfuse.objectives.vectors import VectorRow, read_vector_rows, unit_vector
from promptfuse.tasks.text_encoders import ModelEncoder, TextEncoder

Kind = Literal["text", "embedding", "image"]
"""What an input is."""


@dataclass(frozen=True)
class Item:
    """An input as it was given.

    Attributes:
        id: the name of the input in results.
        place: what messages call it.
        value: a text, numbers or a photo.
        problem: why it cannot be used, with the remedy; empty if it can.
    """

    id: str
    place: str
    value: Any = None
    problem: str = ""


@dataclass(frozen=True)
class Target:
    """An embedding to find a text for.

    Attributes:
        id: the name of the input in results.
        kind: ``text``, ``embedding`` or ``image``.
        vector: (d,), of length 1.
        digest: of what was given, so that a file of results tells it from another input of the same name.
        source: the text that was embedded; None if the input is no text.
        image: the photo; None if the input is none.
    """

    id: str
    kind: Kind
    vector: Float[Tensor, " d"]
    digest: str
    source: str | None = None
    image: ImageLike | None = None


def text_items(given: str) -> list[Item]:
    """The texts of a file, one on each line, or a text itself where there is no such file.

    The lines of a ``.jsonl`` file are texts in quotes, or ``{"id": ..., "text": ...}``.

    Args:
        given: the path of a file, or a text.

    Raises:
        ConfigError: if the file cannot be read.
    """
    path = Path(given)
    try:
        if not path.is_file():
            return [Item(given, "the text", given)]
        lines = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").rstrip("\n").split("\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        if len(given) > 255 or "\0" in given:  # No file's name.
            return [Item(given, "the text", given)]
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read ({reason}); check its permissions") from None
    items = [Item(f"{path}:{number}", f"{path}: line {number}", line) for number, line in enumerate(lines, 1)]
    return [_from_json(item) for item in items] if path.suffix.lower() == ".jsonl" else items


def _from_json(item: Item) -> Item:
    try:
        found = json.loads(item.value)
    except (ValueError, RecursionError):
        return Item(item.id, item.place, problem='is not JSON; write {"text": "..."} on each line')
    if isinstance(found, dict):
        return Item(str(found.get("id", item.id)), item.place, found.get("text"))
    return Item(item.id, item.place, found)


def vector_items(given: Any) -> list[Item]:
    """The vectors of a file, or of an array or list of rows.

    Args:
        given: the path of a ``.npy``, ``.safetensors`` or ``.jsonl`` file, or rows of numbers.

    Raises:
        ConfigError: if the file cannot be read, or there is something else.
    """
    if isinstance(given, str | PathLike):
        rows: Iterable[VectorRow] = read_vector_rows(given)
        return [Item(row.id, row.place, row.values, row.problem) for row in rows]
    if not isinstance(given, Iterable):
        raise ConfigError(f"embedding: {given!r:.60} is not a list of vectors; give rows of numbers")
    return [Item(f"embedding:{number}", f"embedding {number}", row) for number, row in enumerate(given)]


def image_items(given: Iterable[Any]) -> list[Item]:
    """Photos by their paths or addresses, or by their numbers."""
    return [
        Item(str(one) if isinstance(one, str | PathLike) else f"image:{number}", f"image {number}", one)
        for number, one in enumerate(given)
    ]


def read_targets(
    items: Sequence[Item], kind: Kind, encoder: TextEncoder
) -> tuple[list[Target], list[tuple[Item, PromptfuseError]]]:
    """The embeddings of inputs, and what is wrong with the others.

    Args:
        items: the inputs.
        kind: what they are.
        encoder: what texts are read by.

    Returns:
        The targets in order; and the inputs that cannot be used, each with an error of one line that names
        its place and the remedy.

    Raises:
        ConfigError: if photos are to be read by an encoder that reads none, or nothing is given.
        ModelError: if a model fails.
    """
    if not items:
        raise ConfigError(f"{kind}: none given; give at least one")
    if kind == "image" and not isinstance(getattr(encoder, "model", None), ImageTextModel):
        raise ConfigError(f"encoder: {encoder.name} reads no photos; give an image-text model")
    broken: dict[int, PromptfuseError] = {}
    good: list[int] = []
    places: dict[str, str] = {}
    for number, item in enumerate(items):
        try:
            _check(item, kind, places)
            good.append(number)
        except ConfigError as error:
            broken[number] = ConfigError(f"{item.place} {error}")
    vectors = _READERS[kind]([items[number] for number in good], encoder)
    targets: list[Target] = []
    for number, found in zip(good, vectors, strict=True):
        item = items[number]
        if isinstance(found, PromptfuseError):
            broken[number] = found
        else:
            vector, digest = found
            source = item.value if kind == "text" else None
            image = item.value if kind == "image" else None
            targets.append(Target(item.id, kind, vector, digest, source, image))
    return targets, [(items[number], broken[number]) for number in sorted(broken)]


def _check(item: Item, kind: Kind, places: dict[str, str]) -> None:
    """Look at an input, and add its name to those taken.

    Raises:
        ConfigError: if it is broken at first sight; the message says what is wrong, not where.
    """
    if item.problem:
        raise ConfigError(item.problem)
    if item.id in places:
        raise ConfigError(f"has the id {item.id!r} of {places[item.id]}; rename one")
    if kind == "text" and not isinstance(item.value, str):
        raise ConfigError(f"has {item.value!r:.40} in place of a text; give a text")
    if kind == "text" and not item.value.strip():
        raise ConfigError("is empty; give at least one word")
    if kind == "text":
        try:
            item.value.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"is not valid Unicode ({error.reason}); correct it") from None
    places[item.id] = item.place


_Embedded = tuple[Tensor, str] | PromptfuseError
"""A vector of length 1, (d,), and a digest of what was given; or what is wrong with it."""


def _read_texts(items: Sequence[Item], encoder: TextEncoder) -> Iterator[_Embedded]:
    for item, found in zip(items, encoder.each([item.value for item in items]), strict=True):
        if isinstance(found, TextError):
            yield TextError(f"{item.place}: {found}")
        else:
            yield found, _digest(item.value.encode())


def _read_vectors(items: Sequence[Item], encoder: TextEncoder) -> Iterator[_Embedded]:
    width = encoder.features(["a"]).shape[1] if items else None
    for item in items:
        try:
            vector = unit_vector(item.value, width, encoder.name)
        except ConfigError as error:
            yield ConfigError(f"{item.place} {error}")
        else:
            yield vector, _digest(vector.numpy().tobytes())


def _read_images(items: Sequence[Item], encoder: TextEncoder) -> Iterator[_Embedded]:
    assert isinstance(encoder, ModelEncoder)
    assert isinstance(encoder.model, ImageTextModel)
    for item in items:
        try:
            photos, (digest,) = read_photos([item.value])
        except ImageError as error:
            yield error
        else:
            with torch.no_grad():
                yield encoder.model.image_features(photos)[0].float().cpu(), digest


_READERS: dict[Kind, Callable[[Sequence[Item], TextEncoder], Iterator[_Embedded]]] = {
    "text": _read_texts,
    "embedding": _read_vectors,
    "image": _read_images,
}
"""What embeds inputs, by their kind."""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]

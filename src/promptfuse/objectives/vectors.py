"""Embeddings that are given as numbers: what a vector must be, and the files that hold vectors.

A file is ``.npy`` (one vector or a row for each), ``.safetensors`` (the same in each tensor) or ``.jsonl`` (a
list of numbers, or ``{"id": ..., "embedding": [...]}``, on each line). Nothing in a file is run when it is
read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse._utils.git_lfs import POINTER_REMEDY, is_pointer
from promptfuse.errors import ConfigError


@dataclass(frozen=True)
class VectorRow:
    """One entry of a file of vectors.

    Attributes:
        id: the name that the file gives it, or ``FILE:NUMBER``, the file as it was given.
        place: the file and the row or line, as messages name it.
        values: the numbers, unchecked; None where the entry cannot be read at all.
        problem: why it cannot be read, with the remedy; empty if it can.
    """

    id: str
    place: str
    values: Any = None
    problem: str = ""


def unit_vector(values: Any, width: int | None = None, encoder: str = "the encoder") -> Float[Tensor, " d"]:
    """A vector of length 1, (d,), in float32, in the direction of some numbers.

    Args:
        values: a sequence, array or tensor of numbers.
        width: how many numbers there must be; None for any.
        encoder: the name of what gives so many, for the message.

    Raises:
        ConfigError: if there are no numbers, too many or too few, one is not a finite number, or all are
            zero. The message says what is wrong and the remedy, not where the numbers are from.
    """
    array = _as_array(values)
    if array.ndim != 1:
        raise ConfigError(f"has the shape {array.shape}, which is not one vector; give one row of numbers")
    if not len(array):
        raise ConfigError("has no numbers; give the embedding of one text")
    if width is not None and len(array) != width:
        raise ConfigError(
            f"has {len(array):,} numbers, but {encoder} gives {width:,}; name the encoder that made it"
        )
    if not np.isfinite(array).all():
        raise ConfigError("has NaN or infinite numbers; compute it again")
    largest = np.abs(array).max()
    if not largest:
        raise ConfigError("is all zeros, which point nowhere; compute it again")
    array = array / largest  # Squares of very large or small numbers would not be finite, or zero.
    return torch.from_numpy((array / math.sqrt(float(array @ array))).astype(np.float32))


def unit_vectors(vector: Any, file: str | PathLike[str] | None = None) -> Float[Tensor, "vectors d"]:
    """One vector or several of one width, of length 1 each, (vectors, d).

    Args:
        vector: numbers, or rows of them: sequences, an array or a tensor; None if they are in a file.
        file: the file; None if they are given.

    Raises:
        ConfigError: if both or neither are given, or a vector is not valid; the message names which.
    """
    if (vector is None) == (file is None):
        raise ConfigError("vector and file: give one of them, the numbers or the file that has them")
    if file is not None:
        rows = [(row.place, _values_of(row)) for row in read_vector_rows(file)]
    elif _is_one(vector):
        rows = [("vector", vector)]
    else:
        rows = [(f"vector {number}", one) for number, one in enumerate(vector)]
    if not rows:
        raise ConfigError(f"{file or 'vector'}: has no vector; give at least one")
    found: list[Tensor] = []
    for place, values in rows:
        try:
            found.append(unit_vector(values, len(found[0]) if found else None, "the first vector"))
        except ConfigError as error:
            raise ConfigError(f"{place} {error}") from None
    return torch.stack(found)


def read_vector_rows(path: str | PathLike[str]) -> Iterator[VectorRow]:
    """The entries of a file of vectors, good and broken ones.

    Args:
        path: a ``.npy``, ``.safetensors`` or ``.jsonl`` file.

    Raises:
        ConfigError: if the file is missing, cannot be read, or is of another kind.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{path}: is not a file of vectors; give a {', '.join(_READERS)} file")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise ConfigError(f"{path}: {what}; give a {', '.join(_READERS)} file")
    if is_pointer(path):
        raise ConfigError(f"{path}: {POINTER_REMEDY}")
    try:
        return iter(list(reader(path)))
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror or error}); check its permissions"
        ) from None
    except Exception as error:  # Each format has exceptions of its own for damaged files.
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(
            f"{path}: is damaged or not a {path.suffix} file ({reason}); save it again"
        ) from None


def _values_of(row: VectorRow) -> Any:
    if row.problem:
        raise ConfigError(f"{row.place} {row.problem}")
    return row.values


def _is_one(vector: Any) -> bool:
    """Whether values are one vector rather than several."""
    dimensions = getattr(vector, "ndim", None)
    if dimensions is not None:
        return bool(dimensions < 2)
    if isinstance(vector, str | bytes | Mapping) or not isinstance(vector, Iterable):
        return True  # A wrong one.
    first = next(iter(vector), 0.0)
    return isinstance(first, str) or not hasattr(first, "__len__") or getattr(first, "ndim", 1) == 0


def _as_array(values: Any) -> Any:
    """Values as an array of float64.

    Raises:
        ConfigError: if they are not numbers.
    """
    if isinstance(values, Tensor):
        return values.detach().cpu().to(torch.float64).numpy()
    if not isinstance(values, np.ndarray):
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise ConfigError(f"has {values!r:.40} in place of numbers; give a list of numbers")
        values = list(values)
        for one in values:
            if isinstance(one, bool | str) or not hasattr(one, "__float__"):
                raise ConfigError(f"has {one!r:.40} in place of a number; give numbers alone")
    elif values.dtype.kind not in "fiu":
        raise ConfigError(f"has values of type {values.dtype}, not numbers; give numbers alone")
    try:
        return (
            np.asarray([float(one) for one in values]) if isinstance(values, list) else values.astype(float)
        )
    except (OverflowError, ValueError, TypeError):
        raise ConfigError("has a number that is out of range; compute it again") from None


def _rows_of(array: Any, name: str, path: Path) -> Iterator[VectorRow]:
    """The rows of an array, or the one vector that it is."""
    if array.ndim == 1:
        yield VectorRow(name, f"{path}:", array)
    elif array.ndim == 2:
        for number, row in enumerate(array):
            yield VectorRow(f"{name}:{number}", f"{path}: row {number}", row)
    else:
        raise ConfigError(f"{path}: has an array of shape {tuple(array.shape)}; give one row for each vector")


def _read_npy(path: Path) -> Iterator[VectorRow]:
    array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ConfigError(f"{path}: has several arrays; save one")
    yield from _rows_of(array, str(path), path)


def _read_safetensors(path: Path) -> Iterator[VectorRow]:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as tensors:
        names = list(tensors.keys())
        for name in names:
            array = tensors.get_tensor(name)
            if len(names) == 1 and array.ndim != 1:
                yield from _rows_of(array, str(path), path)
            elif array.ndim == 1:
                yield VectorRow(name, f"{path}: {name!r}", array)
            else:
                for row in _rows_of(array, name, path):
                    yield VectorRow(row.id, f"{path}: {row.id!r}", row.values)


def _read_jsonl(path: Path) -> Iterator[VectorRow]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line.strip():
            return  # What follows the last line's end.
        name, place = f"{path}:{number}", f"{path}: line {number}"
        try:
            found = json.loads(line.decode("utf-8-sig")) if line.strip() else []
        except (ValueError, RecursionError):
            yield VectorRow(name, place, problem="is not JSON; write a list of numbers on each line")
            continue
        if isinstance(found, dict):
            if "embedding" not in found:
                yield VectorRow(name, place, problem="has no key 'embedding'; add it, with a list of numbers")
                continue
            name = str(found.get("id", name))
            found = found["embedding"]
        yield VectorRow(name, place, _packed(found))


def _packed(found: Any) -> Any:
    """A list of numbers as an array, which takes a quarter of the memory; all else as it is."""
    if not isinstance(found, list) or not all(type(one) in (int, float) for one in found):
        return found
    try:
        return np.array(found, dtype=float)
    except OverflowError:
        return found


_READERS: Mapping[str, Callable[[Path], Iterator[VectorRow]]] = {
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
    ".jsonl": _read_jsonl,
}
"""What reads a file, by the ending of its name."""

"""Adapter files: safetensors for the maps, JSON for the rest, nothing that runs code when it is read.

The maps are written under a name of their own, the JSON that names them last, and each file appears by a
rename. So a reader sees an old adapter or a new one and never a mixture, and of several writers at once
the last one wins. A writer deletes only the maps whose index it has just replaced: names are never used
twice, so nothing can come to refer to them again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from promptfuse._utils.git_lfs import POINTER_REMEDY, is_pointer
from promptfuse.errors import AdapterError

FORMAT = 1
_INDEX = "adapter.json"


def write(
    folder: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any], *, own: bool = False
) -> None:
    """Write an adapter; one that is there already is replaced.

    Args:
        folder: where to write; created if it does not exist.
        tensors: the maps.
        description: what the index says about them.
        own: whether the folder is the cache's own, in which damaged files are replaced too.

    Raises:
        AdapterError: if the folder cannot be written to, or a file that is not an adapter's would be
            replaced.
    """
    _check_ours(folder, own)
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    maps = f"maps-{secrets.token_hex(8)}.safetensors"
    checksum = _checksum(data, description)
    index = {"format": FORMAT, "maps": maps, "sha256": checksum, "description": description}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        previous = _maps_of(folder)
        _replace(folder / maps, data)
        _replace(folder / _INDEX, (json.dumps(index, indent=1) + "\n").encode())
        if previous is not None:
            (folder / previous).unlink(missing_ok=True)
    except OSError as error:
        raise AdapterError(
            f"cannot write the adapter to {str(folder)!r}: {error.strerror or error}"
        ) from error


def _check_ours(folder: Path, own: bool) -> None:
    """Raise ``AdapterError`` for an index that no adapter has."""
    if own or not (folder / _INDEX).exists():
        return
    try:
        found = json.loads((folder / _INDEX).read_bytes())
        if found.keys() >= {"format", "maps", "sha256", "description"}:
            return
    except (OSError, ValueError, AttributeError):
        pass
    raise AdapterError(
        f"cannot write the adapter to {str(folder)!r}: its {_INDEX} is not an adapter's and "
        "would be replaced; give another folder"
    )


def present(folder: Path) -> bool:
    """Whether a folder has an adapter, whole or not; one that is just being written is not there yet."""
    return (folder / _INDEX).exists()


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read an adapter's maps and description, and check that they are whole.

    Raises:
        AdapterError: if there is none, or if it is damaged or of a format that this version cannot read.
    """
    for file in (folder / _INDEX, *folder.glob("*.safetensors")):
        if is_pointer(file):
            raise AdapterError(f"{file}: {POINTER_REMEDY}")
    try:
        index = json.loads((folder / _INDEX).read_bytes())
        if index["format"] != FORMAT:
            raise AdapterError(
                f"the adapter in {str(folder)!r} has format {index['format']}, this version reads {FORMAT}; "
                "fit it again with Adapter.fit"
            )
        try:
            data = (folder / Path(index["maps"]).name).read_bytes()
        except FileNotFoundError:
            # Replaced since the index was read? Then there is a new index to go by.
            if _maps_of(folder) in (None, index["maps"]):
                raise
            return read(folder)
        if _checksum(data, index["description"]) != index["sha256"]:
            raise AdapterError(_damaged(folder, "its checksum does not match"))
        return load(data), index["description"]
    except OSError as error:
        reason = error.strerror or str(error)
        raise AdapterError(
            f"cannot read an adapter from {str(folder)!r}: {reason}; fit it again with Adapter.fit"
        ) from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise AdapterError(_damaged(folder, f"{type(error).__name__} while reading it")) from error


def _checksum(data: bytes, description: Mapping[str, Any]) -> str:
    """SHA-256 of the maps and of the description, whatever the layout of the JSON."""
    digest = hashlib.sha256(data)
    digest.update(json.dumps(description, sort_keys=True).encode())
    return digest.hexdigest()


def _damaged(folder: Path, reason: str) -> str:
    return (
        f"the adapter in {str(folder)!r} is damaged ({reason}); delete it and fit it again with Adapter.fit"
    )


def _maps_of(folder: Path) -> str | None:
    """Name of the maps that the folder's present index names, if there is a readable one."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        name = json.loads((folder / _INDEX).read_bytes())["maps"]
        # The name is deleted later: only ever a file of ours in this very folder.
        if isinstance(name, str) and Path(name).name == name and name.startswith("maps-"):
            return name
    return None


def _replace(path: Path, data: bytes) -> None:
    """Write under a temporary name in the same folder, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

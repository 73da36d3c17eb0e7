"""Which model this is: a checksum of all that decides what it says, not of its embeddings alone.

Two checkpoints may share embedding table and tokenizer and yet be two models: a merged LoRA and its base, two
heads on one encoder, a CLIP with another vision tower. Whatever goes on with what a model has begun, or puts
numbers of models beside each other, goes by the identity.

The weights are hashed as they lie in memory, so that it does not matter how files are cut into shards or
where they are. That takes a second or so for each gigabyte, so what came of it is remembered in the user's
cache folder, under the names, sizes and times of the files that were read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from torch import Tensor, nn

from promptfuse._utils.atomic_files import atomic_write
from promptfuse._utils.paths import cache_root

LOGGER = logging.getLogger(__name__)

DIGITS = 16
"""Hexadecimal digits of SHA-256 that are kept."""

_REVISION = 1
"""To be raised when the same weights come to have another checksum."""

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
_MOST_FILES = 1000
"""A folder with more files than that is no checkpoint's own, and takes long to look through."""

_JUST_NOW = 2.0
"""Seconds: a file may change again within one tick of its file system's clock without showing it."""

_SAMPLES = 64
"""Numbers of each tensor that are looked at to tell whether somebody has changed it since it was read."""

_NOT_THE_MODEL = (
    "architectures",
    "auto_map",
    "dtype",
    "processor_class",
    "torch_dtype",
    "transformers_version",
)
"""What files say of where they are from and how they were saved."""


def digest(value: Any) -> str:
    """SHA-256 of plain values, the first digits."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def settings_of(values: Any) -> Any:
    """The settings of a configuration or processor, without paths, versions and how it was saved."""
    if isinstance(values, Mapping):
        kept = {str(key): value for key, value in values.items() if key not in _NOT_THE_MODEL}
        return {key: settings_of(value) for key, value in kept.items() if not key.startswith("_")}
    return [settings_of(value) for value in values] if isinstance(values, list | tuple) else values


def tensors_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of named tensors: their names, shapes, types and every bit of their values."""
    named = dict(tensors)
    # Tied weights have several names and are read once.
    places = {
        name: (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        for name, tensor in named.items()
    }
    distinct = {places[name]: tensor for name, tensor in named.items()}
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # hashlib lets go of Python's lock.
        found = dict(zip(distinct, pool.map(_bits_digest, distinct.values()), strict=True))
    rows = [
        [name, list(tensor.shape), str(tensor.dtype), found[places[name]]]
        for name, tensor in sorted(named.items())
    ]
    return digest([_REVISION, rows])


def _bits_digest(tensor: Tensor) -> str:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy()).hexdigest()  # type: ignore[arg-type]


@dataclass(frozen=True)
class Listing:
    """The files of a checkpoint as they were before it was read.

    Attributes:
        folder: where they are.
        files: name, size, times of the last change in nanoseconds, of each.
        settled: whether all of them had been left alone for long enough to trust their times.
    """

    folder: Path
    files: tuple[tuple[str, int, int, int], ...]
    settled: bool


def list_files(source: str) -> Listing | None:
    """The files of a folder or of a cached Hugging Face id; None where there are no weights yet.

    Links, of which the hub's cache is made, are followed.
    """
    folder = Path(source)
    if not folder.is_dir():
        try:
            cached = huggingface_hub.try_to_load_from_cache(source, "config.json")
        except ValueError:
            return None
        if not isinstance(cached, str):
            return None
        folder = Path(cached).parent
    now, found = time.time(), []
    try:
        for path in folder.iterdir():
            if path.is_file():
                seen = path.stat()
                found.append((path.name, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns))
            if len(found) > _MOST_FILES:
                return None
    except OSError:
        return None
    if not any(name.endswith(_WEIGHTS) for name, *_ in found):
        return None
    newest = max(max(changed) for _, _, *changed in found) / 1e9
    return Listing(folder.resolve(), tuple(sorted(found)), newest < now - _JUST_NOW)


class Weights:
    """The checksum of a module's parameters and buffers, computed when it is first asked for.

    Buffers that are not saved with a model, such as tables of rotary positions, follow from its configuration
    and are left out: some change while it reads, and others differ from machine to machine by rounding.

    Args:
        module: the module.
        listing: the files that it was read from, all of it and unchanged; None if there are no such files.
    """

    def __init__(self, module: nn.Module, listing: Listing | None = None) -> None:
        self.module, self.listing = module, listing
        self._read = None if listing is None else self._sample()
        self._stamp: tuple[Any, ...] | None = None
        self._digest = ""
        self._lock = threading.Lock()

    @property
    def digest(self) -> str:
        """The checksum; that of the weights at hand, also where they have been changed in place."""
        with self._lock:
            stamp = self._versions()
            if stamp != self._stamp:
                as_read = self._stamp is None and self.listing is not None and self._sample() == self._read
                self._digest = self._remembered(self.listing) if as_read else self._computed()
                self._stamp = stamp
            return self._digest

    def clear(self) -> None:
        """Hash the weights anew when they are next asked for."""
        self.listing, self._stamp = None, None

    def _tensors(self) -> dict[str, Tensor]:
        return dict(self.module.state_dict(keep_vars=True))

    def _computed(self) -> str:
        return tensors_digest(self._tensors().items())

    def _versions(self) -> tuple[Any, ...]:
        """Changes with what PyTorch knows of: other tensors, and edits in place."""
        return tuple(
            (name, tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
            for name, tensor in self._tensors().items()
        )

    def _sample(self) -> str:
        """A checksum of some numbers of each tensor: edits of ``.data`` leave PyTorch's counter as it is."""
        some = {}
        for name, tensor in self._tensors().items():
            flat = tensor.detach().reshape(-1) if tensor.is_contiguous() else tensor.detach().flatten()
            some[name] = flat[:: max(1, len(flat) // _SAMPLES)]
        return tensors_digest(some.items())

    def _remembered(self, listing: Listing | None) -> str:
        """The checksum as the cache folder has it; computed and put there if it has none."""
        assert listing is not None
        kinds = [
            [name, list(tensor.shape), str(tensor.dtype)] for name, tensor in sorted(self._tensors().items())
        ]
        # Whatever the files say, another version may read them into other tensors.
        role = [_REVISION, str(listing.folder), type(self.module).__name__, transformers.__version__, kinds]
        path = cache_root() / "identities" / f"{digest(role)}.json"
        files = [list(file) for file in listing.files]
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            if known["files"] == files and isinstance(known["weights"], str):
                return str(known["weights"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        found = self._computed()
        if listing.settled:
            values = {"folder": str(listing.folder), "files": files, "weights": found}
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(path, json.dumps(values, indent=1) + "\n")
            except OSError as error:
                LOGGER.debug("%s: %s; the weights are hashed again the next time", path, error)
        return found

"""Where fitted adapters lie on disk.

An adapter lies in a folder of its own, whose name says between which models it is and ends in a checksum of
both fingerprints and of all settings of the fit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from promptfuse._utils.paths import cache_root
from promptfuse.adapters import files
from promptfuse.adapters.fit import PRESETS
from promptfuse.adapters.protocols import EmbeddingModel
from promptfuse.errors import AdapterError

LOGGER = logging.getLogger(__name__)

Tensors = dict[str, Tensor]

_REVISION = 1
"""To be raised when the same settings come to give other maps, so that no old adapter is used."""


def cache_folder() -> Path:
    """Where adapters are cached: ``PROMPTFUSE_CACHE`` if it is set, else the user's cache folder."""
    return cache_root() / "adapters"


def adapter_folder(model_a: EmbeddingModel, model_b: EmbeddingModel, preset: str = "default") -> Path:
    """The folder of the adapter for two models, whether it is there or not.

    Raises:
        AdapterError: if the preset is unknown.
    """
    if preset not in PRESETS:
        raise AdapterError(f"there is no adapter preset {preset!r}; choose from {', '.join(sorted(PRESETS))}")
    settings = [files.FORMAT, _REVISION, asdict(PRESETS[preset])]
    contents = _digest([model_a.fingerprint, model_b.fingerprint, settings])
    return cache_folder() / f"{_pair(model_a, model_b, preset)}-{contents}"


def other_folders(folder: Path) -> list[Path]:
    """The folders of cached adapters between models of the same names, with other contents or settings."""
    pair, _, _ = folder.name.rpartition("-")
    return [other for other in folder.parent.glob(f"{pair}-*") if other != folder]


def cached_tensors(
    model_a: EmbeddingModel, model_b: EmbeddingModel, kind: str, key: object, make: Callable[[], Tensors]
) -> Tensors:
    """What was made for two models, from the cache; made and put there if it is not there, or damaged.

    Args:
        model_a: A.
        model_b: B.
        kind: what it is, for the folder's name.
        key: JSON values that decide what is made, besides both models' fingerprints.
        make: makes it; every tensor is named.
    """
    contents = _digest([model_a.fingerprint, model_b.fingerprint, files.FORMAT, _REVISION, key])
    folder = cache_folder() / f"{_pair(model_a, model_b, kind)}-{contents}"
    if files.present(folder):
        try:
            return files.read(folder)[0]
        except AdapterError as error:
            LOGGER.warning("%s", f"{error}: making it again")
    made = make()
    try:
        files.write(folder, made, {"kind": kind, "key": key}, own=True)
    except AdapterError as error:
        LOGGER.warning("%s", f"{error}; it is used without being cached")
    return made


def _pair(model_a: EmbeddingModel, model_b: EmbeddingModel, preset: str) -> str:
    """A name for people, and a checksum of what it leaves out of the models' names."""
    names = (model_a.name, model_b.name)
    plain = [re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[-40:] for name in names]
    return f"{plain[0]}--{plain[1]}--{preset}-{_digest(names)[:8]}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]

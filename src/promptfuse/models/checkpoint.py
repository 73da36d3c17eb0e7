"""Where a model's files are, and whether they are what they are taken for, before any is loaded."""

from __future__ import annotations

import json
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub

from promptfuse._utils.git_lfs import POINTER_REMEDY, is_pointer
from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ModelError
from promptfuse.models.diffusion_files import INDEX, find_index
from promptfuse.models.gguf import convert_gguf, find_gguf, is_gguf
from promptfuse.models.packaged import PACKAGED, find_packaged
from promptfuse.models.peft_files import PEFT_CONFIG, PeftFiles, find_peft

LOGGER = logging.getLogger(__name__)
"""Where notices go."""

EMBEDDED = {
    name: Path(__file__).parent / "mini" / name.removeprefix("mini-")
    for name in ("mini-lm", "mini-clip", "mini-tone")
}
"""The models that the package carries, by the names that ``load_model`` takes."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Where weights are, in the order in which they are looked for."""

_MOST_ADAPTERS = 8
"""Adapters on top of each other; more are taken for a circle."""


@dataclass(frozen=True)
class Checkpoint:
    """Where the files of a model are: folders, or Hugging Face ids.

    Attributes:
        name: what the model was called.
        source: what the name stands for.
        weights: the checkpoint whose configuration, weights and image processor are loaded.
        adapters: what is merged into the weights, in order.
        is_pipeline: whether it is a pipeline of diffusers, with its parts in subfolders.
    """

    name: str
    source: str
    weights: str
    adapters: tuple[PeftFiles, ...] = ()
    is_pipeline: bool = False

    @property
    def tokenizer(self) -> str:
        """Where the tokenizer is: with the last adapter, if one was saved there."""
        own = [str(files.folder) for files in self.adapters[-1:] if _has_tokenizer(files.folder)]
        return own[0] if own else self.weights

    @property
    def local(self) -> bool:
        """Whether the weights are in a local folder."""
        return Path(self.weights).is_dir()


def locate(name: str | os.PathLike[str]) -> Checkpoint:
    """Find a model's files, and what is to be merged into its weights.

    Args:
        name: a Hugging Face id, a local folder, a GGUF file, or the name of an embedded or packaged model.

    Raises:
        ModelError: if there is no such model, the hub cannot be reached, or the files are something else.
    """
    shown = str(name)
    source = str(find_packaged(shown) if name in PACKAGED else EMBEDDED.get(shown, name))
    _check_there(source, shown, isinstance(name, os.PathLike))
    source = weights = _unpacked(source, shown)
    if find_index(source) is not None:
        return Checkpoint(shown, source, source, is_pipeline=True)
    adapters: list[PeftFiles] = []
    while (found := find_peft(weights, shown)) is not None:
        adapters.insert(0, found)
        if _has_weights(Path(weights)):
            break
        weights = _base(found, shown)
        if len(adapters) > _MOST_ADAPTERS:
            raise ModelError(
                f"{shown}: its adapters name each other as base; name the base model in {found.folder}"
            )
    if not adapters and Path(source).is_dir():
        _tell_of_others(Path(source), shown)
    checkpoint = Checkpoint(shown, source, weights, tuple(adapters))
    if checkpoint.local:
        _check_folder(Path(weights), Path(checkpoint.tokenizer))
    return checkpoint


def is_model_name(name: str) -> bool:
    """Whether a model is embedded or packaged: its name is no path and no Hugging Face id."""
    return name in EMBEDDED or name in PACKAGED


def is_model_path(path: Path) -> bool:
    """Whether a model may be there: a folder, or a GGUF file."""
    return path.is_dir() or is_gguf(path)


def _unpacked(source: str, name: str) -> str:
    """The folder that a GGUF file is converted to, if the weights of a model are in one; else as it is."""
    place = Path(source)
    if not is_model_path(place) or _has_weights(place) or (place / PEFT_CONFIG).exists():
        return source
    file = find_gguf(place, name)
    return source if file is None else str(convert_gguf(file, name))


def _tell_of_others(folder: Path, name: str) -> None:
    """Say that adapters in folders below are not merged; where there is nothing else, give their folders."""
    found = sorted(file.parent for file in folder.glob(f"*/{PEFT_CONFIG}"))
    if not found:
        return
    if not (folder / "config.json").exists():
        raise ModelError(f"{name}: no config.json, but an adapter in {found[0].name}; give {found[0]}")
    LOGGER.warning("%s: the adapter in %s is not merged; give %s to use it", name, found[0].name, found[0])


def _base(adapter: PeftFiles, name: str) -> str:
    """The folder or id of the checkpoint that an adapter is for."""
    if adapter.base is None:
        raise ModelError(
            f"{name}: the adapter does not say which model it is for; set base_model_name_or_path in its "
            "adapter_config.json"
        )
    beside = adapter.folder / adapter.base
    base = str(EMBEDDED.get(adapter.base, beside if beside.is_dir() else adapter.base))
    try:
        _check_there(base, adapter.base, False)
    except ModelError as error:
        raise ModelError(f"{name}: the adapter's base cannot be found ({error})") from None
    return base


def _check_there(source: str, name: str, is_path: bool) -> None:
    """Raise for what is neither a folder nor on the hub."""
    if not source:
        raise ModelError("the model's name is empty; give a folder, a Hugging Face id or an embedded model")
    place = Path(source)
    if place.is_file() and not is_gguf(place):
        raise ModelError(f"{name}: {POINTER_REMEDY if is_pointer(place) else 'is a file; give its folder'}")
    if not place.is_dir() and not place.is_file():
        if is_path:
            raise ModelError(f"{name}: no such folder; check the path")
        _check_hub(source)


def _has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _WEIGHTS)


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).exists() for name in _TOKENIZER_FILES)


def _check_folder(folder: Path, tokenizer: Path) -> None:
    """Raise if a folder's files, or those of the tokenizer's folder, are not those of a model."""
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder}: no config.json in this folder; give a folder made by save_pretrained")
    if not _has_tokenizer(tokenizer):
        raise ModelError(f"{folder}: no tokenizer in this folder; save the model's tokenizer beside it")
    # Files that are not read may well be pointers: weights in other formats, a slow tokenizer's.
    read = [folder / name for name in ("config.json", "preprocessor_config.json", *_read_weights(folder))]
    fast = tokenizer / "tokenizer.json"
    slow = () if fast.is_file() and not is_pointer(fast) else (*_TOKENIZER_FILES[1:], "merges.txt")
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    for file in (*read, *(tokenizer / name for name in (*names, *slow))):
        if is_pointer(file):
            raise ModelError(f"{file}: {POINTER_REMEDY}")


def _read_weights(folder: Path) -> list[str]:
    """The files of weights that are read: the first there are, and what an index names."""
    found = next((name for name in _WEIGHTS if (folder / name).is_file()), None)
    if found is None or not found.endswith("index.json"):
        return [found] if found else []
    try:
        shards = set(json.loads((folder / found).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, OSError, KeyError, TypeError, AttributeError):
        return [found]
    return [found, *sorted(str(shard) for shard in shards)]


def _remedy(name: str) -> str:
    """What to do where the hub is out of reach."""
    near = nearest(name, (*EMBEDDED, *PACKAGED))
    if near.startswith("did you mean"):
        return near
    embedded = f"{', '.join(EMBEDDED)}; --models mini"
    return f"connect to the network, give a local folder, or use an embedded model ({embedded})"


def _check_hub(name: str) -> None:
    """Fail at once, with one line, where waiting for the hub would be in vain."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/"):
        raise ModelError(f"{name}: no such folder; check the path")
    try:
        cached = [
            huggingface_hub.try_to_load_from_cache(name, file) for file in ("config.json", PEFT_CONFIG, INDEX)
        ]
    except ValueError:
        raise ModelError(f"{name}: neither a folder nor a Hugging Face id; check the spelling") from None
    if any(isinstance(file, str) for file in cached):
        return
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        near = nearest(name, (*EMBEDDED, *PACKAGED))
        remedy = near if near.startswith("did you mean") else "unset it or give a folder"
        raise ModelError(f"{name}: not in the local cache and HF_HUB_OFFLINE is set; {remedy}")
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return  # A proxy resolves the host for us, so a direct connection would tell nothing.
    parts = urlsplit(huggingface_hub.constants.ENDPOINT)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        raise ModelError(
            f"{name}: not in the local cache and the model hub cannot be reached; {_remedy(name)}"
        ) from None

"""Pipelines of diffusers in folders and on the hub: which files they are, and what can be read of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import huggingface_hub
from transformers.utils import cached_file

from promptfuse._utils.git_lfs import POINTER_REMEDY, is_pointer
from promptfuse.errors import ModelError

INDEX = "model_index.json"
"""Where a pipeline says what it is made of."""

PIPELINES = {"StableDiffusionPipeline": 1, "StableDiffusionXLPipeline": 2}
"""The classes of pipelines that can be read, and how many text encoders each has."""

_CLASSES = {
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
}


@dataclass(frozen=True)
class PipelineFiles:
    """The parts of a pipeline, each in a subfolder of its own.

    Attributes:
        source: its folder or Hugging Face id.
        name: what errors call it.
        encoders: the subfolders of the text encoders, and for each its class of transformers.
        tokenizers: the subfolders of their tokenizers.
    """

    source: str
    name: str
    encoders: dict[str, str]
    tokenizers: tuple[str, ...]

    @property
    def weights(self) -> tuple[str, ...]:
        """The subfolders with weights."""
        return (*self.encoders, "unet", "vae")

    @property
    def parts(self) -> tuple[str, ...]:
        """All subfolders."""
        return (*self.weights, *self.tokenizers, "scheduler")

    def stem(self, part: str) -> str:
        """What the files of a part's weights are called."""
        return "model" if part in self.encoders else "diffusion_pytorch_model"


def find_index(source: str) -> str | None:
    """The path of a pipeline's ``model_index.json``; None for any other model.

    Args:
        source: a folder or a Hugging Face id.
    """
    if Path(source).is_dir():
        path = Path(source) / INDEX
        return str(path) if path.is_file() else None
    # What is known to have a configuration of its own is no pipeline: the hub need not be asked.
    if isinstance(huggingface_hub.try_to_load_from_cache(source, "config.json"), str):
        return None
    try:
        found: str | None = cached_file(
            source,
            INDEX,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):  # Whoever reads the configuration next says what is wrong.
        return None
    return found


def read_index(source: str, name: str) -> PipelineFiles:
    """What a pipeline is made of.

    Args:
        source: its folder or Hugging Face id.
        name: what errors call it.

    Raises:
        ModelError: if it is of a class or has parts that cannot be read, or a file is missing.
    """
    index = find_index(source)
    values = _read(Path(index), name) if index else {}
    kind = values.get("_class_name")
    if kind not in PIPELINES:
        raise ModelError(
            f"{name}: a pipeline of class {kind} is not supported; give one of class {' or '.join(PIPELINES)}"
        )
    numbers = ("", "_2")[: PIPELINES[kind]]
    encoders = [f"text_encoder{number}" for number in numbers]
    for part in (*encoders, "unet", "vae"):
        library, own = _class_of(values, part)
        if own != _CLASSES[part]:
            raise ModelError(
                f"{name}: its {part} is of class {own} ({library}), which is not supported; give a pipeline "
                f"whose {part} is of class {_CLASSES[part]}"
            )
    tokenizers = tuple(f"tokenizer{number}" for number in numbers)
    files = PipelineFiles(source, name, {part: _CLASSES[part] for part in encoders}, tokenizers)
    if Path(source).is_dir():
        _check_folder(files)
    return files


def fetch(files: PipelineFiles) -> PipelineFiles:
    """The pipeline in a local folder, which the hub's cache has; nothing is fetched that is not read.

    Args:
        files: the pipeline, in a folder or on the hub.

    Raises:
        ModelError: if a file is missing.
    """
    if Path(files.source).is_dir():
        return files
    wanted = [INDEX, *(f"{part}/*.{end}" for part in files.parts for end in ("json", "txt"))]
    for part in files.weights:
        wanted += [f"{part}/{files.stem(part)}.safetensors", f"{part}/{files.stem(part)}-*-of-*.safetensors"]
    local = replace(files, source=huggingface_hub.snapshot_download(files.source, allow_patterns=wanted))
    _check_folder(local)
    return local


def _read(index: Path, name: str) -> dict[str, Any]:
    if is_pointer(index):
        raise ModelError(f"{index}: {POINTER_REMEDY}")
    try:
        values = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: {INDEX} cannot be read ({error}); use an undamaged copy") from None
    if not isinstance(values, dict):
        raise ModelError(f"{name}: {INDEX} is not a mapping; use an undamaged copy")
    return values


def _class_of(values: dict[str, Any], part: str) -> tuple[str, str]:
    """Library and class of a part; both ``None`` where there is none."""
    given = values.get(part)
    if isinstance(given, list) and len(given) == 2:
        return str(given[0]), str(given[1])
    return "None", "None"


def _check_folder(files: PipelineFiles) -> None:
    """Raise where a part's files are missing, only pickled, or not fetched by git-lfs."""
    root = Path(files.source)
    for part in files.parts:
        if not (root / part).is_dir():
            raise ModelError(f"{files.name}: has no folder {part}; give a folder made by save_pretrained")
        for file in sorted((root / part).iterdir()):
            if file.suffix in (".json", ".safetensors") and is_pointer(file):
                raise ModelError(f"{file}: {POINTER_REMEDY}")
    for part in files.weights:
        names = (f"{files.stem(part)}.safetensors", f"{files.stem(part)}.safetensors.index.json")
        if not any((root / part / name).is_file() for name in names):
            raise ModelError(
                f"{files.name}: no {names[0]} in {part}; save the pipeline with safe_serialization=True"
            )

"""What a model is, told from its small files, without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import huggingface_hub

from promptfuse.errors import ModelError
from promptfuse.models.base import Model
from promptfuse.models.checkpoint import EMBEDDED, locate
from promptfuse.models.classifier import SequenceClassifier
from promptfuse.models.diffusion import DiffusionModel
from promptfuse.models.diffusion_files import INDEX, read_index
from promptfuse.models.from_files import load_tokenizer, quiet
from promptfuse.models.gguf import is_gguf
from promptfuse.models.loading import check_device, read_config
from promptfuse.models.packaged import PACKAGED, is_installed
from promptfuse.models.start import find_start


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model before it is loaded.

    Attributes:
        name: as ``load_model`` takes it.
        role: its class.
        labels: of a classifier, in the order of their numbers; empty for others.
        where: ``embedded``, ``package`` (installed by pip), ``folder`` (or GGUF file) or ``hub``.
    """

    name: str
    role: type[Model]
    labels: tuple[str, ...]
    where: Literal["embedded", "package", "folder", "hub"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        labels = {"labels": list(self.labels)} if self.labels else {}
        return {"name": self.name, "kind": self.role.kind, "where": self.where, **labels}

    def has_label(self, label: str) -> bool:
        """Whether a classifier has a label; case does not matter."""
        return label.casefold() in (known.casefold() for known in self.labels)


def read_model_info(name: str, device: str = "cpu") -> ModelInfo:
    """Look at a model's configuration; weights are neither read nor downloaded.

    Args:
        name: a Hugging Face id, a local folder, a GGUF file, or the name of an embedded or packaged model.
        device: where the model would go.

    Raises:
        ConfigError: if there is no such device.
        ModelError: if there is no such model, or it is of no supported kind.
    """
    check_device(device)
    found = locate(name)
    if found.is_pipeline:
        read_index(found.source, name)
        return ModelInfo(name, DiffusionModel, (), "folder" if found.local else "hub")
    if found.local and not any(
        True for end in ("safetensors", "bin") for _ in Path(found.weights).glob(f"*.{end}")
    ):
        raise ModelError(f"{name}: no weights in this folder; give a folder made by save_pretrained")
    with quiet(downloads=False):
        config, role, _ = read_config(found)
    labels: tuple[str, ...] = ()
    if issubclass(role, SequenceClassifier):
        labels = tuple(str(config.id2label[index]) for index in sorted(config.id2label))
    where: Literal["embedded", "package", "folder", "hub"] = "folder" if found.local else "hub"
    if name in EMBEDDED:
        where = "embedded"
    elif name in PACKAGED:
        where = "package"
    return ModelInfo(name, role, labels, where)


Place = Literal["embedded", "package", "not installed", "folder", "file", "cached", "not cached"]


def place_of(name: str) -> tuple[Place, str]:
    """Whether a model is here, and where or how to get it; nothing is downloaded or converted."""
    if name in EMBEDDED:
        return "embedded", str(EMBEDDED[name])
    if name in PACKAGED:
        here = is_installed(name)
        return ("package", PACKAGED[name].module) if here else ("not installed", PACKAGED[name].install)
    if Path(name).is_dir():
        return "folder", name
    if is_gguf(Path(name)):
        return "file", name
    try:
        cached = [huggingface_hub.try_to_load_from_cache(name, file) for file in ("config.json", INDEX)]
    except ValueError:  # Neither a folder nor an id.
        cached = []
    folder = next((str(Path(file).parent) for file in cached if isinstance(file, str)), None)
    return ("not cached", "model hub") if folder is None else ("cached", folder)


def start_of(name: str, wanted: str = "auto") -> str | None:
    """What stands before every text of a causal language model; None if its files are not here.

    Args:
        name: a Hugging Face id, a local folder, a GGUF file, or the name of an embedded or packaged model.
        wanted: see ``CausalLM``.

    Raises:
        ConfigError: if the model has no such start.
    """
    if place_of(name)[0] in ("not cached", "not installed"):
        return None
    try:
        found = locate(name)
        if found.is_pipeline:
            return None
        with quiet(downloads=False):
            config, _, _ = read_config(found)
            tokenizer = load_tokenizer(found.tokenizer, found.name, {"local_files_only": True})
    except ModelError:  # A cache may hold the configuration alone.
        return None
    return find_start(tokenizer, config, wanted, name).shown(tokenizer)

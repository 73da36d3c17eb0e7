"""What a model is, told from its small files, without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig

from promptfuse.errors import ModelError
from promptfuse.models.base import Model
from promptfuse.models.causal import CausalLM
from promptfuse.models.classifier import SequenceClassifier
from promptfuse.models.loading import (
    EMBEDDED,
    _check_folder,
    _check_hub,
    _clear_errors,
    _quiet,
    _role,
    check_device,
)
from promptfuse.models.sentence import SentenceEncoder
from promptfuse.models.sentence_files import read_layout


@dataclass(frozen=True)
class Sketch:
    """What is known of a model before it is loaded.

    Attributes:
        name: as ``load_model`` takes it.
        role: its class.
        labels: of a classifier, in the order of their numbers; empty for others.
        where: ``embedded``, ``folder`` or ``hub``.
    """

    name: str
    role: type[Model]
    labels: tuple[str, ...]
    where: Literal["embedded", "folder", "hub"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        labels = {"labels": list(self.labels)} if self.labels else {}
        return {"name": self.name, "kind": self.role.kind, "where": self.where, **labels}

    def has_label(self, label: str) -> bool:
        """Whether a classifier has a label; case does not matter."""
        return label.casefold() in (known.casefold() for known in self.labels)


def sketch_model(name: str, device: str = "cpu") -> Sketch:
    """Look at a model's configuration; weights are neither read nor downloaded.

    Args:
        name: a Hugging Face id, a local folder, or the name of an embedded model.
        device: where the model would go.

    Raises:
        ConfigError: if there is no such device.
        ModelError: if there is no such model, or it is of no supported kind.
    """
    check_device(device)
    source = Path(EMBEDDED.get(name, name))
    if source.is_file():
        raise ModelError(f"{name}: is a file; give the folder that it is in")
    if source.is_dir():
        _check_folder(source)
        if not any(found for ending in ("safetensors", "bin") for found in source.glob(f"*.{ending}")):
            raise ModelError(f"{name}: no weights in this folder; give a folder made by save_pretrained")
    else:
        _check_hub(name)
    place = str(source) if source.is_dir() else name
    with _quiet(downloads=False):
        with _clear_errors(name, "configuration"):
            config = AutoConfig.from_pretrained(place)
        role = _role(config)
        if role in (CausalLM, SentenceEncoder, None):
            with _clear_errors(name, "list of modules"):
                role = SentenceEncoder if read_layout(place, name) else role
    if role is None:
        raise ModelError(
            f"{name}: {' '.join(config.architectures or ()) or config.model_type} is no causal LM, "
            "image-text encoder, sequence classifier or sentence encoder; use a checkpoint of such a kind"
        )
    labels: tuple[str, ...] = ()
    if role is SequenceClassifier:
        labels = tuple(str(config.id2label[index]) for index in sorted(config.id2label))
    where: Literal["embedded", "folder", "hub"] = "folder" if source.is_dir() else "hub"
    return Sketch(name, role, labels, "embedded" if name in EMBEDDED else where)

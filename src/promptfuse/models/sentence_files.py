"""What a sentence-transformers folder says beside the weights: pooling, dense layers, the longest text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import safetensors.torch
import torch
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor, nn
from torch.nn import functional

from promptfuse._utils.git_lfs import POINTER_REMEDY, is_pointer
from promptfuse.errors import ModelError

POOLINGS = ("cls", "lasttoken", "max", "mean")
"""The ways in which hidden states become one vector, by the names of sentence-transformers."""

_BOOLEANS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}  # in the order in which several are put side by side
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU, "Sigmoid": nn.Sigmoid
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How hidden states become a sentence's features.

    Attributes:
        pooling: names from `POOLINGS`; the vectors of several are put side by side.
        head: what the pooled vector passes through.
        max_length: the most tokens of a text; None if the folder does not say.
        lower_case: whether texts are read in lower case, whatever the tokenizer does.
    """

    pooling: tuple[str, ...] = ("mean",)
    head: nn.Sequential = field(default_factory=nn.Sequential)
    max_length: int | None = None
    lower_case: bool = False


class UnitLength(nn.Module):
    """Scales vectors to length one."""

    def forward(self, vectors: Tensor) -> Tensor:
        """See the class; (rows, d)."""
        return functional.normalize(vectors, dim=-1)


def read_layout(source: str, name: str) -> Layout | None:
    """The layout of a sentence-transformers model; None if the model is no such one.

    Args:
        source: a folder or a Hugging Face id.
        name: what errors call it.

    Raises:
        ModelError: if the model has a part that is not supported, or a file of its is damaged or missing.
    """
    modules = _json(source, "modules.json", name)
    if modules is None:
        return None
    try:
        kinds = [(_kind(module["type"]), str(module["path"])) for module in modules]
    except (TypeError, KeyError, AttributeError):
        raise ModelError(
            f"{name}: modules.json lists no modules; use the file that it was saved with"
        ) from None
    if [kind for kind, _ in kinds[:2]] != ["Transformer", "Pooling"] or kinds[0][1]:
        raise ModelError(
            f"{name}: modules.json lists {', '.join(kind for kind, _ in kinds) or 'nothing'}; only a "
            "Transformer in the folder itself followed by a Pooling is supported"
        )
    pooling = _pooling(_settings(source, kinds[1][1], name), name)
    head = nn.Sequential()
    for kind, path in kinds[2:]:
        if kind == "Normalize":
            head.append(UnitLength())
        elif kind == "Dense":
            head.extend(_dense(source, path, _settings(source, path, name), name))
        elif kind != "Dropout":  # which does nothing outside of training
            raise ModelError(
                f"{name}: modules.json lists a {kind}, which is not supported; "
                "after the Pooling there may be Dense and Normalize"
            )
    text = _json(source, "sentence_bert_config.json", name) or {}
    longest = text.get("max_seq_length")
    return Layout(
        pooling, head, longest if isinstance(longest, int) else None, bool(text.get("do_lower_case", False))
    )


def _kind(path: str) -> str:
    """The name of a module's class, with its whole path if it is not one of sentence-transformers."""
    return path.rpartition(".")[2] if path.startswith("sentence_transformers.") else path


def _pooling(settings: dict[str, Any], name: str) -> tuple[str, ...]:
    """The poolings that a module's settings name, in the old spelling or in the new one."""
    found = settings.get("pooling_mode")
    if found is None:
        found = [mode for key, mode in _BOOLEANS.items() if settings.get(key)] or ["mean"]
    modes = (found,) if isinstance(found, str) else tuple(found)
    for mode in modes:
        if mode not in POOLINGS:
            raise ModelError(f"{name}: pooling {mode!r} is not supported; there are {', '.join(POOLINGS)}")
    return modes


def _dense(source: str, path: str, settings: dict[str, Any], name: str) -> list[nn.Module]:
    """A linear layer and what follows it."""
    kind = str(settings.get("activation_function", "torch.nn.Tanh"))
    activation = kind.rpartition(".")[2]
    if not kind.startswith("torch.nn.") or activation not in _ACTIVATIONS:
        raise ModelError(
            f"{name}: {path}: the activation {kind} is not supported; there are {', '.join(_ACTIVATIONS)}"
        )
    plain = "sentence_embedding"
    if settings.get("use_residual") or {
        settings.get("module_input_name") or plain,
        settings.get("module_output_name") or plain,
    } != {plain}:
        raise ModelError(
            f"{name}: {path}: only a plain layer on the pooled vector is supported; use another model"
        )
    file = _find(source, f"{path}/model.safetensors")
    if file is None:
        raise ModelError(f"{name}: {path} has no model.safetensors; save the model again in that format")
    try:
        weights = safetensors.torch.load_file(file)
        linear = nn.Linear(
            int(settings["in_features"]), int(settings["out_features"]), bool(settings.get("bias", True))
        )
        linear.load_state_dict({key.removeprefix("linear."): value for key, value in weights.items()})
    except (OSError, KeyError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{name}: {path} cannot be loaded ({reason}); check config.json and model.safetensors in it"
        ) from None
    return [linear.to(torch.float32), _ACTIVATIONS[activation]()]


def _settings(source: str, path: str, name: str) -> dict[str, Any]:
    """The settings of a module; its folder must have them."""
    if not path or path.startswith(("/", "\\")) or ".." in Path(path).parts:
        raise ModelError(f"{name}: modules.json names the folder {path!r}; give each module its own")
    found = _json(source, f"{path}/config.json", name)
    if found is None:
        raise ModelError(f"{name}: {path}/config.json is missing; use a complete copy of the model")
    return dict(found)


def _json(source: str, path: str, name: str) -> Any:
    """A JSON file of the model: a list for modules.json, else an object; None if there is no such file."""
    file = _find(source, path)
    if file is None:
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        found = None
    if not isinstance(found, list if path == "modules.json" else dict):
        raise ModelError(f"{name}: {path} is damaged; use a complete copy of the model")
    return found


def _find(source: str, path: str) -> Path | None:
    """Where a file of the model is, downloaded if need be; None if the model has no such file."""
    if Path(source).is_dir():
        file = Path(source) / path
        if is_pointer(file):
            raise ModelError(f"{file}: {POINTER_REMEDY}")
        return file if file.is_file() else None
    try:
        return Path(huggingface_hub.hf_hub_download(source, path))
    except EntryNotFoundError:  # Offline, this stands for a model that was cached without the file too.
        return None

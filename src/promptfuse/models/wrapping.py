"""Models of modules that are loaded already."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from promptfuse.errors import ModelError
from promptfuse.models.base import Model

_REMEDY = "add tokenizer=AutoTokenizer.from_pretrained(...)"


def split_processor(tokenizer: Any, processor: Any) -> tuple[Any, Any]:
    """The tokenizer and the image processor, of which a processor for both has each.

    Args:
        tokenizer: as given, or None.
        processor: as given, or None.
    """
    for both in (processor, tokenizer):
        if hasattr(both, "tokenizer") and hasattr(both, "image_processor"):
            tokenizer = both.tokenizer if tokenizer in (None, both) else tokenizer
            processor = both.image_processor if processor in (None, both) else processor
    return tokenizer, processor


def check_module(module: Any, tokenizer: Any) -> str:
    """What errors call a module, if it is one that can be wrapped.

    Args:
        module: what was given in the place of a name.
        tokenizer: what was given with it.

    Raises:
        ModelError: if it is not a model of transformers, has an adapter that is not merged, or came without
            its tokenizer.
    """
    kind = type(module).__name__
    if isinstance(module, Model):
        raise ModelError(f"{module.name}: is loaded already; use it as it is")
    if hasattr(module, "merge_and_unload") or (
        isinstance(module, torch.nn.Module)
        and any(type(part).__module__.startswith("peft.") for part in module.modules())
    ):
        raise ModelError(f"{kind}: has an adapter that is not merged; give what merge_and_unload() returns")
    if not isinstance(module, transformers.PreTrainedModel):
        raise ModelError(
            f"{kind} is not a model of transformers; give a PreTrainedModel, a folder or a Hugging Face id"
        )
    if tokenizer is None:
        raise ModelError(f"{kind}: came without its tokenizer; {_REMEDY}")
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerBase):
        raise ModelError(f"{kind}: {type(tokenizer).__name__} is not a tokenizer of transformers; {_REMEDY}")
    return str(getattr(module.config, "_name_or_path", "")) or kind


def without_head(module: Any) -> Any:
    """The part of an encoder whose output is hidden states: the encoder of T5, what a head is put on."""
    if hasattr(module, "shared"):
        return module if not hasattr(module, "decoder") else module.get_encoder()
    return getattr(module, "base_model", module)

"""Thin faces over Hugging Face models, one class per kind."""

from typing import TYPE_CHECKING

from promptfuse._utils.lazy import make_lazy_getattr

if TYPE_CHECKING:
    from promptfuse._utils.prefix_cache import disable_prefix_cache, prefix_cache_disabled
    from promptfuse.models.base import Batch, Model
    from promptfuse.models.causal import CausalLM
    from promptfuse.models.checkpoint import EMBEDDED
    from promptfuse.models.classifier import SequenceClassifier
    from promptfuse.models.diffusion import DiffusionModel
    from promptfuse.models.image_text import ImageTextModel
    from promptfuse.models.images import load_image
    from promptfuse.models.loading import load_model
    from promptfuse.models.presets import PRESETS, Preset, load_preset
    from promptfuse.models.sentence import SentenceEncoder

# Imported at first use: photos can be read without torch, which takes seconds to import.
_HOME = {
    "EMBEDDED": "checkpoint",
    "PRESETS": "presets",
    "Batch": "base",
    "CausalLM": "causal",
    "DiffusionModel": "diffusion",
    "ImageTextModel": "image_text",
    "Model": "base",
    "Preset": "presets",
    "SentenceEncoder": "sentence",
    "SequenceClassifier": "classifier",
    "disable_prefix_cache": "base",
    "load_image": "images",
    "load_model": "loading",
    "load_preset": "presets",
    "prefix_cache_disabled": "base",
}

__all__ = [
    "EMBEDDED",
    "PRESETS",
    "Batch",
    "CausalLM",
    "DiffusionModel",
    "ImageTextModel",
    "Model",
    "Preset",
    "SentenceEncoder",
    "SequenceClassifier",
    "disable_prefix_cache",
    "load_image",
    "load_model",
    "load_preset",
    "prefix_cache_disabled",
]


__getattr__ = make_lazy_getattr(__name__, _HOME)

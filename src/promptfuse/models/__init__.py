"""Thin faces over Hugging Face models, one class per kind."""

from promptfuse.models.base import Batch, Model
from promptfuse.models.causal import CausalLM
from promptfuse.models.classifier import SequenceClassifier
from promptfuse.models.image_text import ImageTextModel
from promptfuse.models.images import load_image
from promptfuse.models.loading import EMBEDDED, load_model
from promptfuse.models.presets import PRESETS, Preset, load_preset
from promptfuse.models.sentence import SentenceEncoder

__all__ = [
    "EMBEDDED",
    "PRESETS",
    "Batch",
    "CausalLM",
    "ImageTextModel",
    "Model",
    "Preset",
    "SentenceEncoder",
    "SequenceClassifier",
    "load_image",
    "load_model",
    "load_preset",
]

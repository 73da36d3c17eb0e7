"""Adapters between the embeddings of two models, and transports that carry gradients across."""

from promptfuse.adapters.adapter import Adapter
from promptfuse.adapters.anchors import AnchorTransport
from promptfuse.adapters.effects import EffectTransport
from promptfuse.adapters.fit import FitConfig
from promptfuse.adapters.maps import Maps
from promptfuse.adapters.moments import Moments
from promptfuse.adapters.protocols import EmbeddingModel
from promptfuse.adapters.report import AdapterReport, LengthReport
from promptfuse.adapters.transports import LexicalTransport, SlotGradient, TProductTransport, Transport
from promptfuse.adapters.words import count_words, english_words, vocabulary_words, word_starts

__all__ = [
    "Adapter",
    "AdapterReport",
    "AnchorTransport",
    "EffectTransport",
    "EmbeddingModel",
    "FitConfig",
    "LengthReport",
    "LexicalTransport",
    "Maps",
    "Moments",
    "SlotGradient",
    "TProductTransport",
    "Transport",
    "count_words",
    "english_words",
    "vocabulary_words",
    "word_starts",
]

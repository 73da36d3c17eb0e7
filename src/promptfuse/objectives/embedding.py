"""Embedding: the cosine of a text's features and a vector that is given as numbers."""

from __future__ import annotations

import hashlib
from os import PathLike
from typing import Annotated, Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.errors import ConfigError
from promptfuse.models import ImageTextModel, Model, SentenceEncoder
from promptfuse.objectives.checks import require_model_kind
from promptfuse.objectives.registry import terms
from promptfuse.objectives.settings import FILE, OfKind
from promptfuse.objectives.similarity import Similarity
from promptfuse.objectives.vectors import unit_vectors

_SAMPLES: WeakKeyDictionary[Model, Tensor] = WeakKeyDictionary()
"""Found once for each model: many terms ask for it, one for each text that is searched for."""


@terms.register("EmbeddingSimilarity")
class EmbeddingSimilarity(Similarity):
    """One minus the cosine similarity of a text's embedding and a vector.

    Of several vectors the mean is taken.

    Args:
        model: the encoder that made the vector: a sentence encoder, or an image-text model, of which the text
            tower is used.
        vector: the numbers, (d,), or (vectors, d) for several: sequences, an array or a tensor, of any
            length but zero.
        weight: factor in the objective's sum; any finite number but zero.
        file: a ``.npy``, ``.safetensors`` or ``.jsonl`` file with the vector, or several, in place of
            ``vector``.
        prefix: put before every text that the encoder reads.
        suffix: put after every text that the encoder reads.
        name: the key under which results show the term.

    Raises:
        ConfigError: if a vector is empty, has another width than the encoder's, is all zeros, or has a value
            that is not a finite number; or if both or neither of ``vector`` and ``file`` are given.
        ModelError: if the model is not an encoder of texts.
    """

    def __init__(
        self,
        model: Annotated[Model, OfKind(SentenceEncoder, ImageTextModel)],
        vector: Any = None,
        weight: float = 1.0,
        *,
        file: Annotated[str | PathLike[str] | None, FILE] = None,
        prefix: str = "",
        suffix: str = "",
        name: str = "embedding",
    ) -> None:
        checked = require_model_kind(model, "EmbeddingSimilarity", SentenceEncoder, ImageTextModel)
        super().__init__(checked, weight, prefix, suffix, name)
        vectors = unit_vectors(vector, file)
        sample = sample_features(self.encoder)
        width = sample.shape[1]
        if vectors.shape[1] != width:
            raise ConfigError(
                f"{file or 'vector'}: has {vectors.shape[1]:,} numbers, but {model.name} gives {width:,}; "
                "name the encoder that made it"
            )
        self.vector_hashes = [hashlib.sha256(one.numpy().tobytes()).hexdigest()[:16] for one in vectors]
        # The mean of cosines is the product with the mean, which therefore stays as short as it is.
        self.features = vectors.mean(0).to(sample)

    @staticmethod
    def check_settings(vector: Any, file: str | None, **others: object) -> None:
        """Raise ``ConfigError`` if the vector or its file is not valid."""
        del others
        unit_vectors(vector, file)

    def describe(self) -> dict[str, Any]:
        """What decides the losses, in plain values."""
        return {**super().describe(), "vectors": self.vector_hashes}

    @property
    def encoder(self) -> SentenceEncoder | ImageTextModel:
        """The model."""
        return cast("SentenceEncoder | ImageTextModel", self.model)


def sample_features(encoder: SentenceEncoder | ImageTextModel) -> Float[Tensor, "1 d"]:
    """Features of some text, (1, d): how many numbers an encoder gives, of which type, and where."""
    if encoder not in _SAMPLES:
        with torch.no_grad():
            _SAMPLES[encoder] = encoder.text_features(encoder.encode(["a"]))
    return _SAMPLES[encoder]

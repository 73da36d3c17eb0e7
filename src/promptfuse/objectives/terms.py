"""The terms: fluency, image similarity, class probability."""

from __future__ import annotations

import hashlib
from typing import Any, cast

from torch import Tensor

from promptfuse.errors import ModelError, TextError
from promptfuse.models import Batch, CausalLM, ImageTextModel, Model, SequenceClassifier, load_image
from promptfuse.models.images import ImageLike
from promptfuse.objectives.base import Term


def _expect(model: Model, kind: type[Model], term: str) -> Model:
    if not isinstance(model, kind):
        raise ModelError(f"{term} needs a model of kind {kind.kind}; {model.name} is of kind {model.kind}")
    return model


class Fluency(Term):
    """Mean negative log-likelihood per token under a causal language model, in nats.

    The paper's fluency term (Williams & Kolter, 2024, section 4), with a gradient-free shortcut that
    the search uses: the NLL of one more token is known from the parent's next-token distribution.
    """

    def __init__(
        self, model: Model, weight: float = 1.0, *, prefix: str = "", suffix: str = "", name: str = "fluency"
    ) -> None:
        super().__init__(_expect(model, CausalLM, "Fluency"), weight, prefix, suffix, name)

    @property
    def lm(self) -> CausalLM:
        """The language model."""
        return cast(CausalLM, self.model)

    def losses(self, batch: Batch) -> Tensor:
        """Mean NLL per token, (rows,).

        Raises:
            TextError: if a text has no token that the model predicts.
        """
        total, count = self.lm.nll(batch)
        if not bool(count.all()):
            raise TextError(f"{self.model.name} predicts no token of an empty text; give at least one word")
        return total / count


class ImageSimilarity(Term):
    """One minus the cosine similarity of text and photo under an image-text model."""

    def __init__(
        self,
        model: Model,
        image: ImageLike,
        weight: float = 22.0,
        *,
        prefix: str = "",
        suffix: str = "",
        name: str = "image",
    ) -> None:
        super().__init__(_expect(model, ImageTextModel, "ImageSimilarity"), weight, prefix, suffix, name)
        photo = load_image(image)
        self.features = self.encoder.image_features([photo])[0]
        self.photo_hash = hashlib.sha256(repr(photo.size).encode() + photo.tobytes()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """See ``Term.describe``."""
        return {**super().describe(), "photo": self.photo_hash}

    @property
    def encoder(self) -> ImageTextModel:
        """The image-text model."""
        return cast(ImageTextModel, self.model)

    def losses(self, batch: Batch) -> Tensor:
        """1 - cosine similarity, (rows,), between 0 and 2."""
        return 1 - self.encoder.text_features(batch) @ self.features


class ClassProbability(Term):
    """Negative log-probability of a label under a sequence classifier, in nats.

    Args:
        model: the classifier.
        label: one of its labels.
        weight: see ``Term``.
        prefix: see ``Term``.
        suffix: see ``Term``.
        name: see ``Term``.

    Raises:
        ConfigError: if the model has no such label.
    """

    def __init__(
        self,
        model: Model,
        label: str,
        weight: float = 2.0,
        *,
        prefix: str = "",
        suffix: str = "",
        name: str = "class",
    ) -> None:
        super().__init__(_expect(model, SequenceClassifier, "ClassProbability"), weight, prefix, suffix, name)
        self.label = label
        self.index = self.classifier.label_index(label)

    def describe(self) -> dict[str, Any]:
        """See ``Term.describe``."""
        return {**super().describe(), "label": self.classifier.labels[self.index]}

    @property
    def classifier(self) -> SequenceClassifier:
        """The classifier."""
        return cast(SequenceClassifier, self.model)

    def losses(self, batch: Batch) -> Tensor:
        """NLL of the label, (rows,)."""
        return -self.classifier.log_probabilities(batch)[:, self.index]

"""Similarity: the cosine of a text's features and those of photos or of other texts."""

from __future__ import annotations

from typing import Annotated, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.models import ImageTextModel, Model, SentenceEncoder
from promptfuse.objectives.base import Term
from promptfuse.objectives.checks import read_photos, read_texts, require_model_kind
from promptfuse.objectives.registry import terms
from promptfuse.objectives.settings import OfKind, Photos, Texts


class Similarity(Term):
    """One minus the cosine of a text's features and others, which a subclass puts into ``features``, (d,)."""

    features: Float[Tensor, " d"]

    def loss_from_outputs(self, outputs: Float[Tensor, "rows d"]) -> Float[Tensor, " rows"]:
        """1 - cosine similarity, (rows,), between 0 and 2, of unit features, (rows, d)."""
        return 1 - outputs @ self.features


@terms.register("ImageSimilarity")
class ImageSimilarity(Similarity):
    """One minus the cosine similarity of text and photo under an image-text model.

    Of several photos the mean is taken.

    Args:
        model: the image-text model.
        image: a photo, or several: paths or open images.
        weight: see ``Term``.
        prefix: see ``Term``.
        suffix: see ``Term``.
        name: see ``Term``.

    Raises:
        ImageError: if a photo cannot be read.
        ConfigError: if there are none.
    """

    def __init__(
        self,
        model: Annotated[Model, OfKind(ImageTextModel)],
        image: Photos,
        weight: float = 22.0,
        *,
        prefix: str = "",
        suffix: str = "",
        name: str = "image",
    ) -> None:
        super().__init__(
            require_model_kind(model, "ImageSimilarity", ImageTextModel), weight, prefix, suffix, name
        )
        photos, self.photo_hashes = read_photos(image)
        # The mean of cosines is the product with the mean, which therefore stays as short as it is.
        self.features = self.encoder.image_features(photos).mean(0)

    def describe(self) -> dict[str, Any]:
        """What decides the losses, in plain values."""
        return {**super().describe(), "photos": self.photo_hashes}

    @property
    def encoder(self) -> ImageTextModel:
        """The image-text model."""
        return cast(ImageTextModel, self.model)


@terms.register("TextSimilarity")
class TextSimilarity(Similarity):
    """One minus the cosine similarity of a text and another one.

    Of several other texts the mean is taken.

    Args:
        model: a sentence encoder, or an image-text model, of which the text tower is used.
        text: the other text, or several; read as they stand, without the term's prefix and suffix.
        weight: see ``Term``.
        prefix: see ``Term``.
        suffix: see ``Term``.
        name: see ``Term``.

    Raises:
        TextError: if another text is empty or longer than the model takes.
        ConfigError: if there are none.
    """

    def __init__(
        self,
        model: Annotated[Model, OfKind(SentenceEncoder, ImageTextModel)],
        text: Texts,
        weight: float = 1.0,
        *,
        prefix: str = "",
        suffix: str = "",
        name: str = "text",
    ) -> None:
        checked = require_model_kind(model, "TextSimilarity", SentenceEncoder, ImageTextModel)
        super().__init__(checked, weight, prefix, suffix, name)
        self.targets = read_texts(text, "target text")
        with torch.no_grad():
            found = [self.encoder.text_features(model.encode([target])) for target in self.targets]
        self.features = torch.cat(found).mean(0)

    def describe(self) -> dict[str, Any]:
        """What decides the losses, in plain values."""
        return {**super().describe(), "targets": self.targets}

    @property
    def encoder(self) -> SentenceEncoder | ImageTextModel:
        """The model."""
        return cast("SentenceEncoder | ImageTextModel", self.model)

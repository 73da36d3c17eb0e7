"""Image-text dual encoders: CLIP, SigLIP and any ``VisionTextDualEncoderModel``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from promptfuse._utils.batched_calls import batched_call
from promptfuse.errors import ModelError
from promptfuse.models.base import Batch, Model, Parts
from promptfuse.models.batching import prefix_bytes
from promptfuse.models.fast.choice import Trial
from promptfuse.models.fast.protocol import PrefixReader
from promptfuse.models.fast.towers import TowerReader
from promptfuse.models.identity import settings_of
from promptfuse.models.photo_size import check_processed
from promptfuse.models.precision import at_least_float32
from promptfuse.models.registry import models
from promptfuse.models.siglip import spell_as_trained

_TYPES = (
    "clip",
    "siglip",
    "siglip2",
    "vision-text-dual-encoder",
    "chinese_clip",
    "altclip",
    "metaclip_2",
)


def _pooled(output: Any) -> Float[Tensor, "rows d"]:
    """The feature tensor, whether the model returns it bare or in an output object."""
    return output if isinstance(output, Tensor) else output.pooler_output


@models.register("image-text")
class ImageTextModel(Model):
    """An image-text model: unit features of texts and photos in one space.

    Where the model's configuration has ``mirror_photos``, as mini-clip's does, a photo's features are the
    mean of those of the photo and of its mirror image, of unit length.

    Args:
        module: a model with ``get_text_features`` and ``get_image_features``.
        tokenizer: its fast tokenizer.
        processor: its image processor.
        name: the hub id or folder that it came from.
        tokenizer_class: the class that the tokenizer's files name, where it is another one than the
            tokenizer's own: SigLIP's says how texts are spelled.
    """

    kind = "image-text"

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        processor: Any,
        name: str,
        tokenizer_class: str | None = None,
    ) -> None:
        super().__init__(module, tokenizer, name)
        self.processor = processor
        # SigLIP pools the last position and was trained on rows of full length only.
        self.full_rows = getattr(module.config, "model_type", "").startswith("siglip")
        if self.full_rows:
            spell_as_trained(tokenizer, tokenizer_class or "")

    @classmethod
    def matches_config(cls, config: Any, architectures: tuple[str, ...]) -> bool:
        """Whether the model puts texts and photos into one space."""
        del architectures
        return config.model_type in _TYPES

    @classmethod
    def from_parts(cls, parts: Parts) -> Self:
        """The model with its image processor.

        Raises:
            ModelError: if it came without one.
        """
        if parts.processor is None:
            raise ModelError(
                f"{parts.name}: came without its image processor; "
                "add processor=AutoImageProcessor.from_pretrained(...)"
            )
        return cls(parts.module, parts.tokenizer, parts.processor(), parts.name, parts.tokenizer_class)

    def settings(self) -> dict[str, Any]:
        """What decides beside the weights what the model says, the image processor included."""
        processor = self.processor.to_dict() if hasattr(self.processor, "to_dict") else repr(self.processor)
        return {**super().settings(), "processor": settings_of(processor)}

    @property
    def text_module(self) -> nn.Module:
        """The text tower."""
        module: nn.Module = self.module.text_model
        return module

    def collate(self, rows: Sequence[Sequence[int]], content: Sequence[tuple[int, int]]) -> Batch:
        """Pad on the right; to the full length where the model was trained so."""
        if self.full_rows:
            rows = [[*row, *[self.pad_id] * (self.max_length - len(row))] for row in rows]
        return super().collate(rows, content)

    def _fast_readers(self) -> tuple[Sequence[PrefixReader], Trial | None]:
        projection = getattr(self.module, "text_projection", None)
        tower: Any = self.text_module
        if self.full_rows or not isinstance(projection, nn.Module) or not TowerReader.matches(tower):
            return (), None
        # Old configurations have a wrong end mark, and mean the highest id.
        end = len(self.embedding_table) - 1 if tower.eos_token_id == 2 else tower.eos_token_id
        ids = [token for token in range(len(self.embedding_table)) if token != end][: self.max_length - 3]
        if len(ids) < 4 or self.max_length < 9:
            return (), None
        reader = TowerReader(tower, projection, prefix_bytes(self.device))
        return [reader], self._trial(ids, (end,), self.max_length)

    def text_features(self, batch: Batch) -> Float[Tensor, "rows d"]:
        """Unit features of encoded texts, (rows, d); differentiable."""
        return self.outputs(batch)

    def read_padded(self, batch: Batch) -> Float[Tensor, "rows d"]:
        """Unit features, (rows, d), in one pass over padded rows."""
        # A model that reads full rows was trained without a mask.
        mask = None if self.full_rows else batch.mask
        features = _pooled(self.module.get_text_features(input_ids=batch.ids, attention_mask=mask))
        return functional.normalize(at_least_float32(features), dim=-1)

    def image_features(self, images: Sequence[Image.Image]) -> Float[Tensor, "{len(images)} d"]:
        """Unit features of RGB photos, (photos, d).

        Raises:
            ImageError: if the image processor would make far too much of a photo.
        """
        for image in images:
            check_processed(image, self.processor)
        return batched_call(("photos", id(self)), images, self._features_of_several)

    @torch.no_grad()
    def _features_of_several(self, asked: Sequence[Sequence[Image.Image]]) -> list[Float[Tensor, "_ d"]]:
        """Features of several searches' photos, in one go."""
        images = [image for several in asked for image in several]
        found = self._read_photos(images)
        if getattr(self.module.config, "mirror_photos", False):
            found = functional.normalize(found + self._read_photos([*map(ImageOps.mirror, images)]), dim=-1)
        return list(torch.split(found, [len(several) for several in asked]))

    def _read_photos(self, images: Sequence[Image.Image]) -> Float[Tensor, "{len(images)} d"]:
        """Unit features of photos as they stand, (photos, d)."""
        inputs = self.processor(images=list(images), return_tensors="pt")
        # Some models take the patches of each photo's own shape, with what tells it.
        known = inspect.signature(self.module.get_image_features).parameters
        inputs = {key: value.to(self.device) for key, value in inputs.items() if key in known}
        inputs["pixel_values"] = inputs["pixel_values"].to(next(self.module.parameters()).dtype)
        features = _pooled(self.module.get_image_features(**inputs))
        return functional.normalize(at_least_float32(features), dim=-1)

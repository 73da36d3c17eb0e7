"""Image-text dual encoders: CLIP, SigLIP and any ``VisionTextDualEncoderModel``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from promptfuse.models.base import Batch, Model, at_least_float32
from promptfuse.models.batching import prefix_bytes
from promptfuse.models.fast.prefix import Branches, KVPrefix
from promptfuse.models.fast.towers import TextTower
from promptfuse.models.identity import settings_of
from promptfuse.models.photo_size import check_processed
from promptfuse.models.siglip import spell_as_trained
from promptfuse.models.together import together


def _pooled(output: Any) -> Tensor:
    """The feature tensor, whether the model returns it bare or in an output object."""
    return output if isinstance(output, Tensor) else output.pooler_output


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

    def settings(self) -> dict[str, Any]:
        """See ``Model.settings``; with the image processor's."""
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

    @cached_property
    def tower(self) -> TextTower | None:
        """The text tower as one that reads shared beginnings once; None where it is not of that kind."""
        projection = getattr(self.module, "text_projection", None)
        if self.full_rows or not isinstance(projection, nn.Module) or not TextTower.matches(self.text_module):
            return None
        tower = TextTower(self.text_module, projection, prefix_bytes(self.device))
        return tower if self._agrees(tower) else None

    @torch.no_grad()
    def _agrees(self, tower: TextTower) -> bool:
        """Whether a trial on two texts with a common beginning gives the module's own features."""
        end = tower.module.eos_token_id
        end = len(self.embedding_table) - 1 if end == 2 else end
        ids = [token for token in range(len(self.embedding_table)) if token != end][: self.max_length - 3]
        if len(ids) < 4 or self.max_length < 7:
            return False
        trunk = tuple(ids[:4])
        rows = [[*trunk, ids[0], end], [*trunk, ids[2], ids[1], end], [*trunk[:2], ids[3], end]]
        batch = self.collate(rows, [(0, len(row) - 1) for row in rows])
        features = _pooled(self.module.get_text_features(input_ids=batch.ids, attention_mask=batch.mask))
        prefixes = tower.prefixes([trunk[:3], trunk])
        found = tower.features(rows, Branches(tuple(prefixes), (1, 1, 0), (4, 4, 2)))
        tower.cache.clear()
        coarse = torch.finfo(features.dtype).eps > 1e-4
        expected = functional.normalize(at_least_float32(features), dim=-1)
        found = functional.normalize(at_least_float32(found), dim=-1)
        return bool((found - expected).abs().max() < (0.05 if coarse else 1e-4))

    def prefixes(self, rows: Sequence[tuple[int, ...]]) -> list[KVPrefix] | None:
        """See ``Model.prefixes``."""
        return None if self.tower is None else self.tower.prefixes(rows)

    def most_shared(self, row: Sequence[int]) -> int:
        """All tokens but the one whose output is the text's."""
        return len(row) - 1 if self.tower is None else self.tower.pooling_column(row)

    def text_features(self, batch: Batch) -> Tensor:
        """Unit features of encoded texts, (rows, d); differentiable."""
        if batch.branches is not None and self.tower is not None:
            features = self.tower.features(batch.rows, batch.branches)
            return functional.normalize(at_least_float32(features), dim=-1)
        return self.read_apart(batch, self.read_padded)

    def read_padded(self, batch: Batch) -> Tensor:
        """See ``Model.read_padded``: unit features."""
        # A model that reads full rows was trained without a mask.
        mask = None if self.full_rows else batch.mask
        features = _pooled(self.module.get_text_features(input_ids=batch.ids, attention_mask=mask))
        return functional.normalize(at_least_float32(features), dim=-1)

    def image_features(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit features of RGB photos, (photos, d).

        Raises:
            ImageError: if the image processor would make far too much of a photo.
        """
        for image in images:
            check_processed(image, self.processor)
        return together(("photos", id(self)), images, self._features_of_several)

    @torch.no_grad()
    def _features_of_several(self, asked: Sequence[Sequence[Image.Image]]) -> list[Tensor]:
        """Features of several searches' photos, in one go."""
        images = [image for several in asked for image in several]
        found = self._read_photos(images)
        if getattr(self.module.config, "mirror_photos", False):
            found = functional.normalize(found + self._read_photos([*map(ImageOps.mirror, images)]), dim=-1)
        return list(torch.split(found, [len(several) for several in asked]))

    def _read_photos(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit features of photos as they stand, (photos, d)."""
        inputs = self.processor(images=list(images), return_tensors="pt")
        # Some models take the patches of each photo's own shape, with what tells it.
        known = inspect.signature(self.module.get_image_features).parameters
        inputs = {key: value.to(self.device) for key, value in inputs.items() if key in known}
        inputs["pixel_values"] = inputs["pixel_values"].to(next(self.module.parameters()).dtype)
        features = _pooled(self.module.get_image_features(**inputs))
        return functional.normalize(at_least_float32(features), dim=-1)

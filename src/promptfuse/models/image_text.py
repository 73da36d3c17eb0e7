"""Image-text dual encoders: CLIP, SigLIP and any ``VisionTextDualEncoderModel``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from promptfuse.models.base import Batch, Model, at_least_float32


def _pooled(output: Any) -> Tensor:
    """The feature tensor, whether the model returns it bare or in an output object."""
    return output if isinstance(output, Tensor) else output.pooler_output


class ImageTextModel(Model):
    """An image-text model: unit features of texts and photos in one space.

    Args:
        module: a model with ``get_text_features`` and ``get_image_features``.
        tokenizer: its fast tokenizer.
        processor: its image processor.
        name: the hub id or folder that it came from.
    """

    kind = "image-text"

    def __init__(
        self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, processor: Any, name: str
    ) -> None:
        super().__init__(module, tokenizer, name)
        self.processor = processor
        # SigLIP pools the last position and was trained on rows of full length only.
        self.full_rows = getattr(module.config, "model_type", "").startswith("siglip")

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

    def text_features(self, batch: Batch) -> Tensor:
        """Unit features of encoded texts, (rows, d); differentiable."""
        # A model that reads full rows was trained without a mask.
        mask = None if self.full_rows else batch.mask
        features = _pooled(self.module.get_text_features(input_ids=batch.ids, attention_mask=mask))
        return functional.normalize(at_least_float32(features), dim=-1)

    @torch.no_grad()
    def image_features(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit features of RGB photos, (photos, d)."""
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        parameter = next(self.module.parameters())
        pixels = pixels.to(device=self.device, dtype=parameter.dtype)
        features = _pooled(self.module.get_image_features(pixel_values=pixels))
        return functional.normalize(at_least_float32(features), dim=-1)

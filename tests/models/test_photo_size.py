"""Memory is bounded before a photo is scaled: a strip grows with its shorter side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image

from promptfuse.errors import ImageError
from promptfuse.models.photo_size import processed_pixels

KINDS = (
    "Bit", "ChineseCLIP", "CLIP", "ConvNext", "DeiT", "Dinov3ViT", "EfficientNet", "LevIT", "MobileNetV1",
    "MobileNetV2", "MobileViT", "Poolformer", "PVT", "Siglip", "Swin2SR", "ViT", "ViTHybrid",
)  # fmt: skip


def processor_of(kind: str) -> Any:
    found = getattr(transformers, f"{kind}ImageProcessorPil", None)
    if found is None:
        pytest.skip(f"transformers has no {kind}ImageProcessorPil")
    return found()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(300, 40), (40, 300), (64, 64)])
def test_the_estimate_is_what_a_processor_makes(
    kind: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = processor_of(kind)
    seen = [size[0] * size[1]]
    scale = Image.Image.resize

    def watched(image: Image.Image, size: Any, *more: Any, **options: Any) -> Image.Image:
        seen.append(size[0] * size[1])
        return scale(image, size, *more, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    processor(images=[Image.new("RGB", size, "white")], return_tensors="pt")
    estimate = processed_pixels(processor, *size)
    assert max(seen) <= max(estimate, size[0] * size[1]) * 1.02
    if len(seen) > 1 and not hasattr(processor, "crop_pct"):  # which is left out above some size
        assert estimate <= 1.4 * max(seen[1:])


def test_a_photo_that_would_grow_beyond_memory_is_refused(
    model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = model("clip")
    monkeypatch.setattr(loaded.processor, "size", {"shortest_edge": 2000})
    monkeypatch.setattr(np, "array", lambda *_, **__: pytest.fail("the photo was read"))
    with pytest.raises(ImageError, match=r"photo of 1500x30 pixels: .* 200 megapixels; crop it"):
        loaded.image_features([Image.new("RGB", (1500, 30))])

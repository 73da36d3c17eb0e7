from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image, ImageOps
from torch.nn import functional
from transformers import AutoTokenizer

from promptfuse import load_model

ENCODERS = ("clip", "old-clip", "siglip", "dual")
TEXTS = ("dog", "A brown dog runs through the grass.", "Two children")


def photos() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for height, width in ((40, 56), (64, 64), (33, 90))
    ]


@pytest.fixture
def reference(checkpoint: Callable[[str], Path]) -> Callable[[str], tuple[Any, Any]]:
    """The module and the tokenizer, loaded without our code."""

    def load(name: str) -> tuple[Any, Any]:
        transformers.logging.disable_progress_bar()
        module = transformers.AutoModel.from_pretrained(checkpoint(name)).eval()
        transformers.logging.enable_progress_bar()
        return module, AutoTokenizer.from_pretrained(checkpoint(name))

    return load


@pytest.mark.parametrize("name", ENCODERS)
def test_text_features_are_those_of_transformers(
    name: str, model: Callable[..., Any], reference: Callable[[str], tuple[Any, Any]]
) -> None:
    module, tokenizer = reference(name)
    padding = "max_length" if name == "siglip" else True
    inputs = tokenizer(list(TEXTS), padding=padding, return_tensors="pt")
    with torch.no_grad():
        expected = functional.normalize(module.get_text_features(**inputs).pooler_output, dim=-1)
    loaded = model(name)
    found = loaded.text_features(loaded.encode(TEXTS))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (found[0] - found[2]).abs().max() > 0.01
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(TEXTS)))


@pytest.mark.parametrize("name", ENCODERS)
def test_a_short_text_pools_at_its_own_end(name: str, model: Callable[..., Any]) -> None:
    # Padded on the left with the end mark, a short row would pool at position 1, as an empty text does.
    loaded = model(name)
    found = loaded.text_features(loaded.encode(["dog", "", "A brown dog runs through the grass"]))
    alone = loaded.text_features(loaded.encode(["dog"]))
    empty = loaded.text_features(loaded.encode([""]))
    torch.testing.assert_close(found[:1], alone, rtol=1e-5, atol=1e-5)
    assert (found[0] - empty[0]).abs().max() > 0.01


def test_siglip_reads_rows_of_full_length_without_a_mask(model: Callable[..., Any]) -> None:
    loaded = model("siglip")
    batch = loaded.encode(["dog"])
    assert batch.ids.shape == (1, loaded.max_length)
    with torch.no_grad():
        short = loaded.module.get_text_features(input_ids=batch.ids[:, :4]).pooler_output
    assert (functional.normalize(short, dim=-1) - loaded.text_features(batch)).abs().max() > 0.01


@pytest.mark.parametrize("name", ENCODERS)
def test_image_features_are_those_of_transformers(
    name: str,
    model: Callable[..., Any],
    reference: Callable[[str], tuple[Any, Any]],
    checkpoint: Callable[[str], Path],
) -> None:
    module, _ = reference(name)
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint(name))
    pixels = processor(images=photos(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = functional.normalize(module.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    found = model(name).image_features(photos())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(model(name).image_features(photos()[1:2])[0], found[1], rtol=1e-5, atol=1e-5)
    assert (found[0] - found[1]).abs().max() > 1e-4


def test_mirrored_photos_count_half_where_the_model_asks_for_it(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, mirrored = tmp_path / "dual", [ImageOps.mirror(photo) for photo in photos()]
    shutil.copytree(checkpoint("dual"), folder)
    plain = load_model(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mirror_photos": True}))
    both = load_model(folder)
    mean = plain.image_features(photos()) + plain.image_features(mirrored)
    expected = functional.normalize(mean, dim=-1)
    torch.testing.assert_close(both.image_features(photos()), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(both.image_features(mirrored), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(both.image_features(photos()), plain.image_features(photos()), atol=1e-3)
    assert both.identity != plain.identity
    assert load_model("mini-clip").module.config.mirror_photos


def test_image_features_follow_the_type_of_the_model(model: Callable[..., Any]) -> None:
    assert model("dual", torch.float64).image_features(photos()).dtype == torch.float64
    assert model("clip", torch.bfloat16).image_features(photos()).dtype == torch.float32

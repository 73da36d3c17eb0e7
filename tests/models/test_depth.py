"""Photos of any depth look like the photo of eight bits that they were made of."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import promptfuse as pf
from promptfuse.errors import ImageError
from promptfuse.models import load_image, load_model

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "hot_air_balloon.jpg"


def grey() -> np.ndarray[Any, Any]:
    """A real photo in grey, (64, 96), from black to white, floats between 0 and 255."""
    with Image.open(PHOTO) as image:
        values = np.asarray(image.convert("L").resize((96, 64)), dtype=float)
    return np.rint((values - values.min()) / (values.max() - values.min()) * 255)


def error(source: Any, expected: np.ndarray[Any, Any]) -> float:
    found = np.asarray(load_image(source), dtype=float)
    return float(np.abs(found - expected[..., None]).max())


STORED: dict[str, Any] = {
    "float 0..1": lambda x: (x / 255).astype(np.float32),
    "float 0..255": lambda x: x.astype(np.float32),
    "float 0..65535": lambda x: (x * 257).astype(np.float32),
    "float -1..1": lambda x: (x / 127.5 - 1).astype(np.float32),
    "float 0..1e-4": lambda x: (x / 255e4).astype(np.float32),
    "float 0..12": lambda x: (x / 255 * 12).astype(np.float32),
    "float 3000..1e6": lambda x: (3000 + x / 255 * 997000).astype(np.float32),
    "8 bits in 32": lambda x: x.astype(np.int32),
    "12 bits in 16": lambda x: np.rint(x / 255 * 4095).astype(np.uint16),
    "12 bits in 32": lambda x: np.rint(x / 255 * 4095).astype(np.int32),
    "14 bits in 16": lambda x: np.rint(x / 255 * 16383).astype(np.uint16),
    "16 bits": lambda x: np.rint(x * 257).astype(np.uint16),
    "16 bits in 32": lambda x: np.rint(x * 257).astype(np.int32),
    "31 bits": lambda x: np.rint(x / 255 * (2**31 - 1)).astype(np.int32),
    "signed": lambda x: np.rint(x * 100 - 12000).astype(np.int32),
    "temperatures": lambda x: np.rint(29000 + x * 8).astype(np.uint16),
}


@pytest.mark.parametrize("kind", STORED)
def test_grey_of_any_depth(kind: str, tmp_path: Path) -> None:
    values = STORED[kind](grey())
    Image.fromarray(values).save(tmp_path / "a.tiff")
    assert error(tmp_path / "a.tiff", grey()) <= 1
    assert error(Image.fromarray(values), grey()) <= 1
    assert error(values, grey()) <= 1
    if values.dtype == np.uint16:
        Image.fromarray(values).save(tmp_path / "a.png")
        assert error(tmp_path / "a.png", grey()) <= 1


@pytest.mark.parametrize("scale", [1 / 255, 1, 257])
def test_a_dim_photo_of_floating_point_stays_dim(scale: float, tmp_path: Path) -> None:
    dim = 20 + grey() / 3
    Image.fromarray((dim * scale).astype(np.float32)).save(tmp_path / "a.tiff")
    assert error(tmp_path / "a.tiff", dim) <= 1


def test_filters_may_overshoot(tmp_path: Path) -> None:
    values = (grey() / 255).astype(np.float32)
    values[0, 0], values[0, 1] = -0.03, 1.03
    Image.fromarray(values).save(tmp_path / "a.tiff")
    expected = grey()
    expected[0, 0], expected[0, 1] = 0, 255
    assert error(tmp_path / "a.tiff", expected) <= 1


def test_big_endian_files(tmp_path: Path) -> None:
    image = Image.new("I;16B", (96, 64))
    image.frombytes(np.rint(grey() * 257).astype(">u2").tobytes())
    assert error(image, grey()) <= 1
    image.save(tmp_path / "a.tiff")
    assert error(tmp_path / "a.tiff", grey()) <= 1


def test_pixels_without_a_value(tmp_path: Path) -> None:
    values = (grey() / 255).astype(np.float32)
    values[0, :5] = [np.nan, np.inf, -np.inf, -3.4e38, np.nan]
    expected = grey()
    expected[0, :5] = [0, 255, 0, 0, 0]
    expected[0, [0, 2, 3, 4]] = grey().min()
    Image.fromarray(values).save(tmp_path / "a.tiff")
    assert error(tmp_path / "a.tiff", expected) <= 1
    Image.fromarray(np.full((64, 96), np.nan, dtype=np.float32)).save(tmp_path / "b.tiff")
    with pytest.raises(ImageError, match=r"b\.tiff.*no pixel has a finite value"):
        load_image(tmp_path / "b.tiff")


def test_one_shade(tmp_path: Path) -> None:
    for value, shade in ((0.0, 0), (0.5, 128), (1.0, 255), (77.0, 77), (1e7, 128)):
        found = np.asarray(load_image(np.full((9, 9), value)))
        assert np.abs(found.astype(float) - shade).max() <= 1, value


def test_a_clear_value_of_16_bits_is_white(tmp_path: Path) -> None:
    values = np.rint(grey() * 257).astype(np.uint16)
    values[:10] = 300
    Image.fromarray(values).save(tmp_path / "a.png", transparency=300)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode.startswith("I")
        assert image.info["transparency"] == 300
    expected = grey()
    expected[:10] = 255
    assert error(tmp_path / "a.png", expected) <= 1


def test_modes_of_eight_bits_and_fewer() -> None:
    with Image.open(PHOTO) as image:
        photo = image.convert("RGB").resize((96, 64))
    for mode, tolerance in (("RGB", 0), ("RGBA", 0), ("RGBX", 0), ("CMYK", 0), ("YCbCr", 3), ("HSV", 12)):
        found = np.asarray(load_image(photo.convert(mode)), dtype=float)
        assert np.abs(found - np.asarray(photo)).max() <= tolerance, mode
    shades = np.asarray(photo.convert("L"), dtype=float)
    for mode in ("L", "LA"):
        assert error(photo.convert("L").convert(mode), shades) == 0
    assert error(photo.convert("LA").convert("La"), shades) == 0
    assert np.array_equal(np.asarray(load_image(photo.convert("RGBA").convert("RGBa"))), np.asarray(photo))
    two = photo.convert("1")
    assert error(two, np.asarray(two) * 255.0) == 0


def test_arrays_and_tensors() -> None:
    with Image.open(PHOTO) as image:
        photo = np.asarray(image.convert("RGB").resize((96, 64)))
    clear = np.dstack([photo, np.full((64, 96), 255, np.uint8)])
    as_tensor = torch.from_numpy(photo.copy()).permute(2, 0, 1)
    given = {
        "uint8": photo,
        "with alpha": clear,
        "uint16": photo.astype(np.uint16) * 257,
        "float32": (photo / 255).astype(np.float32),
        "float64": photo / 255,
        "channels first": photo.transpose(2, 0, 1),
        "tensor": as_tensor,
        "tensor of floats": as_tensor / 255,
        "tensor with gradient": (as_tensor / 255).requires_grad_(),
    }
    for name, source in given.items():
        found = np.asarray(load_image(source), dtype=float)
        assert np.abs(found - photo).max() <= 1, name
    clip = load_model("mini-clip")
    expected = pf.ImageSimilarity(clip, load_image(photo)).features
    for several in (photo, [photo], np.stack([photo, photo])):
        assert torch.allclose(pf.ImageSimilarity(clip, several).features, expected, atol=1e-6)
    with pytest.raises(ImageError, match="5 is not a photo"):
        pf.ImageSimilarity(clip, 5)  # type: ignore[arg-type]
    coarse = np.asarray(load_image((as_tensor / 255).bfloat16()), dtype=float)
    assert np.abs(coarse - photo).max() <= 2
    alike = load_image(photo[..., :1])
    assert error(alike, photo[..., 0].astype(float)) == 0
    assert error(photo[..., 0] > 99, (photo[..., 0] > 99) * 255.0) == 0


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((3, 4, 5, 6)), ["shape (3, 4, 5, 6)"]),
        (np.zeros(7), ["shape (7,)"]),
        (np.zeros((40, 40, 5)), ["shape (40, 40, 5)"]),
        (np.zeros((0, 40)), ["40x0 pixels is too small"]),
        (np.zeros((40, 40), dtype=complex), ["complex128"]),
        (np.array([["a"] * 20] * 20), ["<U1"]),
        (np.full((20, 20), np.nan), ["no pixel has a finite value"]),
        (np.zeros((20, 20), complex), ["pixels of type complex128 are not a brightness; give"]),
        (BytesIO(b"abc"), ["BytesIO", "is not a photo", "a path"]),
        (5, ["5 is not a photo", "a path"]),
        (None, ["None is not a photo", "a path"]),
        (b"\xff\xd8", ["is not a photo", "a path"]),
        ([PHOTO], ["is not a photo", "a path"]),
        (Image.new("RGB", (0, 5)), ["0x5 pixels is too small"]),
    ],
)
def test_what_is_no_photo(source: Any, words: list[str]) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(source)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.slow
def test_a_caption_of_an_array_is_that_of_the_photo() -> None:
    few: dict[str, Any] = {"steps": 3, "beams": 2, "candidates": 5}
    photo = load_image(PHOTO)
    expected = pf.caption(PHOTO, **few)
    found = pf.caption(np.asarray(photo), **few)
    assert (found.text, found.value) == (expected.text, expected.value)
    many = pf.caption_many([np.asarray(photo), photo], **few)
    assert [one.text for one in many] == [expected.text] * 2

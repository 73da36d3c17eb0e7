from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptfuse.errors import ImageError
from promptfuse.models import load_image
from promptfuse.models.images import MAX_PIXELS

RED, BLUE, GREEN, WHITE = (255, 0, 0), (0, 0, 255), (0, 128, 0), (255, 255, 255)


def corners() -> Image.Image:
    """48 x 32: red at the upper left, blue at the upper right, green at the lower left, else white."""
    image = Image.new("RGB", (48, 32), "white")
    image.paste(RED, (0, 0, 16, 16))
    image.paste(BLUE, (32, 0, 48, 16))
    image.paste(GREEN, (0, 16, 16, 32))
    return image


def refused(source: str | Path, *parts: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(source)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def close(found: Image.Image, expected: Image.Image, tolerance: float = 0) -> None:
    assert found.mode == "RGB"
    assert found.size == expected.size
    difference = np.abs(np.asarray(found, dtype=float) - np.asarray(expected.convert("RGB"), dtype=float))
    assert difference.max() <= tolerance


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "tiff", "ppm"])
def test_formats_without_loss(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    corners().save(path, **({"lossless": True} if suffix == "webp" else {}))
    close(load_image(path), corners())
    close(load_image(str(path)), corners())


def test_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    corners().save(path, quality=100, subsampling=0)
    close(load_image(path), corners(), 6)


# What has to be done to an upright picture for a camera to store it with each orientation.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_orientation(orientation: int, suffix: str, tmp_path: Path) -> None:
    stored, way = corners(), STORED[orientation]
    if way is not None:
        stored = stored.transpose(way)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    stored.save(path, exif=exif, quality=100, subsampling=0)
    close(load_image(path), corners(), 6 if suffix == "jpg" else 0)
    with Image.open(path) as image:
        close(load_image(image), corners(), 6 if suffix == "jpg" else 0)


def test_greyscale(tmp_path: Path) -> None:
    grey = corners().convert("L")
    grey.save(tmp_path / "a.png")
    close(load_image(tmp_path / "a.png"), grey)
    grey.convert("1").save(tmp_path / "b.png")
    close(load_image(tmp_path / "b.png"), grey.convert("1"))


def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 16 * 16, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "a.tiff")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "b.tiff")
    for name in ("a.png", "a.tiff", "b.tiff"):
        found = np.asarray(load_image(tmp_path / name), dtype=float)
        assert np.abs(found - values[..., None] / 257).max() <= 1, name


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (8, 0, 16, 8))
    image.paste((0, 0, 0, 128), (0, 8, 8, 16))
    for name in ("a.png", "a.webp"):
        image.save(tmp_path / name, **({"lossless": True, "exact": True} if name.endswith("webp") else {}))
        found = load_image(tmp_path / name)
        assert found.getpixel((0, 0)) == WHITE
        assert found.getpixel((12, 4)) == BLUE
        assert found.getpixel((4, 12)) == (127, 127, 127)
    image.convert("LA").save(tmp_path / "b.png")
    assert load_image(tmp_path / "b.png").getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("transparency", [0, b"\x00\xff\xff"])
def test_palette_with_transparency(transparency: int | bytes, tmp_path: Path) -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 128, 0])
    image.paste(1, (8, 0, 16, 8))
    image.save(tmp_path / "a.png", transparency=transparency)
    found = load_image(tmp_path / "a.png")
    assert found.getpixel((0, 0)) == WHITE
    assert found.getpixel((12, 4)) == BLUE


def test_palette_without_transparency(tmp_path: Path) -> None:
    image = corners().quantize(8)
    image.save(tmp_path / "a.png")
    close(load_image(tmp_path / "a.png"), corners(), 2)


def test_cmyk(tmp_path: Path) -> None:
    corners().convert("CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.mode == "CMYK"
    close(load_image(tmp_path / "a.jpg"), corners(), 12)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_first_frame_of_an_animation(suffix: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=100, **options)
    close(load_image(tmp_path / f"a.{suffix}"), frames[0])


def test_an_open_image_is_left_as_it_is() -> None:
    image = corners().convert("RGBA")
    close(load_image(image), corners())
    assert image.mode == "RGBA"


# ------------------------------------------------------------------------------------ what is refused


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a few bytes whose header claims this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize(
    "size", [(20_000, 20_000), (12_000, 10_000), (2**31 - 1, 2**31 - 1), (1, MAX_PIXELS + 1)]
)
def test_decompression_bomb(size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(*size))

    def decode(*args: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    start = time.perf_counter()
    refused(path, str(path), "decompression bomb", "scale it down")
    assert time.perf_counter() - start < 1


def test_large_photos_below_the_limit_are_not_bombs(tmp_path: Path) -> None:
    # 90 million pixels are more than Pillow warns of; that the file is cut short is another error.
    path = tmp_path / "large.png"
    path.write_bytes(bomb(10_000, 9_000))
    refused(path, "damaged or cut short")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tiff"])
def test_truncated(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, str(path))
    if suffix == "jpg":
        refused(path, "damaged or cut short", "save it again")


def test_text_file_with_the_name_of_a_photo(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("This is not a photo.\n")
    refused(path, str(path), "not an image", "JPEG")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    refused(path, str(path), "not an image")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    refused(tmp_path / "a.jpg", str(tmp_path / "a.jpg"), "no such file", "check the path")
    refused(tmp_path, str(tmp_path), "is a folder", "*.jpg")
    refused("x" * 5000 + ".jpg")
    refused("a\0b.jpg", "no such file")


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (100, 7)])
def test_too_small(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", size).save(path)
    refused(path, str(path), f"{size[0]}x{size[1]} pixels is too small", "8x8")


@pytest.mark.parametrize("size", [(1_000_000, 8), (8, 1_000_000), (5_000, 16), (1_601, 8)])
def test_too_long(size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("1", size).save(path)

    def decode(*args: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    refused(path, str(path), f"{size[0]}x{size[1]} pixels is more than 200 times as long as wide", "crop it")


def test_longest(tmp_path: Path) -> None:
    Image.new("RGB", (1600, 8), RED).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").getpixel((1599, 7)) == RED


def test_memory_that_runs_out_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise MemoryError

    corners().save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", full)
    refused(tmp_path / "a.png", "a.png: not enough memory", "scale it down")


def test_a_file_that_git_lfs_has_not_fetched(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 48210\n", encoding="ascii"
    )
    refused(path, "a.jpg: is a git-lfs pointer", "git lfs pull")


def test_smallest(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), RED).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").getpixel((7, 7)) == RED


def test_damaged_orientation_does_not_keep_a_photo_from_being_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker" * 10
    content = io.BytesIO()
    corners().save(content, "JPEG", quality=100, subsampling=0, exif=exif)
    data = content.getvalue()
    at = data.index(b"Exif\0\0")
    for damage in (
        b"\xff" * 20,
        b"MM\0*" + b"\xff" * 16,
        b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\xff\xff" * 3,
    ):
        path.write_bytes(data[: at + 6] + damage + data[at + 6 + len(damage) :])
        found = load_image(path)
        assert found.mode == "RGB"
        assert sorted(found.size) == [32, 48]


FORMATS: dict[str, Callable[[Image.Image, io.BytesIO], None]] = {
    "JPEG": lambda image, file: image.save(file, "JPEG"),
    "PNG": lambda image, file: image.save(file, "PNG"),
    "GIF": lambda image, file: image.quantize(16).save(file, "GIF"),
    "WEBP": lambda image, file: image.save(file, "WEBP"),
    "TIFF": lambda image, file: image.save(file, "TIFF", compression="tiff_lzw"),
    "BMP": lambda image, file: image.save(file, "BMP"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_give_a_photo_or_a_clear_error(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = io.BytesIO()
    FORMATS[kind](corners(), file)
    original = file.getvalue()
    generator = np.random.default_rng(0)
    path = tmp_path / f"a.{kind.lower()}"
    errors = []
    for _ in range(60):
        data = bytearray(original)
        for place in generator.integers(0, min(len(data), 400), 3):
            data[place] = int(generator.integers(256))
        path.write_bytes(
            data[: int(generator.integers(1, len(data) + 1))] if generator.random() < 0.3 else data
        )
        try:
            assert load_image(path).mode == "RGB"
        except ImageError as error:
            errors.append(str(error))
    assert errors
    assert not any("\n" in message for message in errors)
    assert capfd.readouterr().out == ""

from __future__ import annotations

import builtins
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.registry import known_implementations
from PIL import Image

from promptfuse.errors import ImageError
from promptfuse.evaluation.datasets import open_photo
from promptfuse.models import load_image


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """An empty file system in memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def encoded(image: Image.Image, kind: str = "JPEG", **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def gradient() -> Image.Image:
    return Image.linear_gradient("L").resize((40, 30))


def huge() -> bytes:
    """The header of a PNG file of 400 megapixels, and nearly nothing of its data."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def refused(address: str, *words: str) -> None:
    with pytest.raises(ImageError) as error:
        open_photo(address)
    said = str(error.value)
    assert said.startswith(f"{address}: ")
    assert "\n" not in said
    for word in words:
        assert word in said


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_address_gives_what_the_path_gives(memory, tmp_path, kind):
    turned = Image.Exif()
    turned[0x0112] = 6
    data = encoded(gradient(), kind, exif=turned)
    (tmp_path / "a").write_bytes(data)
    memory.pipe_file("/bucket/a é", data)
    expected = np.asarray(load_image(tmp_path / "a"))
    assert expected.shape == (40, 30, 3)  # Upright.
    for address in (str(tmp_path / "a"), f"file://{tmp_path}/a", "memory://bucket/a é"):
        assert np.array_equal(np.asarray(open_photo(address)), expected), address


def test_transparent_parts_are_white(memory):
    memory.pipe_file("/a.png", encoded(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), "PNG"))
    assert open_photo("memory://a.png").getpixel((4, 4)) == (255, 255, 255)


def test_bad_photos_are_named_in_one_line(memory, monkeypatch):
    data = encoded(gradient())
    for name, content in {
        "short.jpg": data[: len(data) // 2],
        "text.jpg": b"hello",
        "empty.jpg": b"",
        "small.png": encoded(Image.new("L", (3, 3)), "PNG"),
        "huge.png": huge(),
        "long.jpg": data + bytes(1000),
    }.items():
        memory.pipe_file(f"/{name}", content)
    refused("memory://short.jpg", "damaged or cut short")
    refused("memory://text.jpg", "not an image")
    refused("memory://empty.jpg", "not an image")
    refused("memory://small.png", "too small")
    refused("memory://huge.png", "megapixels")
    refused("memory://none.jpg", "no such file")
    assert open_photo("memory://long.jpg").size == (40, 30)
    monkeypatch.setattr("promptfuse.models.images.MAX_BYTES", len(data))
    refused("memory://long.jpg", f"more than {len(data):,} bytes")
    memory.pipe_file("/exact.jpg", data)
    assert open_photo("memory://exact.jpg").size == (40, 30)


def test_systems_that_are_unknown_or_need_a_package(monkeypatch):
    refused("nosuch://bucket/a.jpg", "check the address")
    plain = builtins.__import__

    def without_fsspec(name: str, *rest: object) -> object:
        if name.partition(".")[0] == "fsspec":
            raise ModuleNotFoundError("No module named 'fsspec'", name="fsspec")
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_fsspec)
    refused("memory://a.jpg", "needs fsspec; pip install fsspec")


def test_a_backend_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(
        known_implementations,
        "faraway",
        {"class": "package_that_is_not_there.Store", "err": "Install faraway-fs to reach it"},
    )
    refused("faraway://bucket/a.jpg", "a package is missing (Install faraway-fs to reach it)")


def test_a_local_path_with_a_colon_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gradient().save(Path("a:b.png"))
    assert open_photo("a:b.png").size == (40, 30)

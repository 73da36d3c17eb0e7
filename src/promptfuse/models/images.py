"""Reading photos: anything that Pillow opens, upright, in RGB."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from promptfuse.errors import ImageError

MAX_PIXELS = 100_000_000
"""Larger photos are refused before they are decoded: a small file may unpack to many gigabytes."""

MIN_SIDE = 8
"""Photos with a shorter side have nothing to describe."""

ImageLike = str | PathLike[str] | Image.Image


def load_image(source: ImageLike) -> Image.Image:
    """Open a photo: EXIF orientation applied, greyscale to RGB, transparent parts on white.

    Args:
        source: a path, or an image that is open already.

    Raises:
        ImageError: if the file is missing, no image, damaged, too small or far too large.
    """
    if isinstance(source, Image.Image):
        with _explained("image"):
            return _upright_rgb(source, "image")
    path = Path(source)
    with _explained(str(path)):
        if path.is_dir():
            raise ImageError(f"{path}: is a folder; give image files, e.g. {path}/*.jpg")
        if not path.exists():
            raise ImageError(f"{path}: no such file; check the path")
        return _decode(path, str(path))


def decode_image(file: BinaryIO, name: str) -> Image.Image:
    """What ``load_image`` gives, from an open file.

    Args:
        file: the bytes of an image file; it can be sought in.
        name: what it is called in messages.

    Raises:
        ImageError: as ``load_image``.
    """
    with _explained(name):
        return _decode(file, name)


def _decode(file: Path | BinaryIO, name: str) -> Image.Image:
    # Pillow warns at its own limit and raises at twice that; ours is checked on the header instead.
    # What else it warns of (odd EXIF data, odd palettes) does not keep a photo from being read.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file) as image:
            _check_size(image, name)
            image.load()
            return _upright_rgb(image, name)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever keeps a photo from being read into one line."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(
            f"{name}: not an image that Pillow can read; give a JPEG, PNG or WebP file"
        ) from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: {_TOO_LARGE}") from None
    except PermissionError:
        raise ImageError(f"{name}: cannot be read; check its permissions") from None
    except Exception as error:  # Decoders raise whatever a damaged file leads them to.
        raise ImageError(
            f"{name}: the image is damaged or cut short ({_first_line(error)}); save it again"
        ) from None


_TOO_LARGE = f"more than {MAX_PIXELS // 1_000_000} megapixels, refused as a decompression bomb; scale it down"


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name}: {_TOO_LARGE}")
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"{name}: {width}x{height} pixels is too small to describe; give at least {MIN_SIDE}x{MIN_SIDE}"
        )


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    _check_size(image, name)
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I"):
        # Pillow clips 16-bit greys to white when it converts them; scale to 8 bits instead.
        image = image.convert("F").point(lambda value: value / 257).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")

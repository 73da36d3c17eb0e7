"""Reading photos: anything that Pillow opens, and arrays, upright, in RGB."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from promptfuse._utils.addresses import is_address, read_bytes
from promptfuse._utils.git_lfs import POINTER_REMEDY, is_pointer
from promptfuse.errors import ImageError
from promptfuse.models.depth import eight_bits

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 100_000_000
"""Larger photos are refused before they are decoded: a small file may unpack to many gigabytes."""

MIN_SIDE = 8
"""Photos with a shorter side have nothing to describe."""

MAX_RATIO = 200
"""Photos that are more times as long as wide are refused: image processors scale the shorter side up to
hundreds of pixels, and the longer one with it."""

MAX_BYTES = 256 * 1024 * 1024
"""Larger files at an address are refused: they are read into memory before they are decoded."""

PATIENCE = 120
"""Seconds that the download of a photo may take."""

ImageLike: TypeAlias = "str | PathLike[str] | Image.Image | NDArray[Any] | Tensor"
"""A path, an address such as ``https://...``, an open image, or an array or tensor of pixels."""


def load_image(source: ImageLike) -> Image.Image:
    """Open a photo: EXIF orientation applied, greyscale to RGB, transparent parts on white.

    Pixels of more than eight bits, or of floating point, are scaled to eight: by the usual scale of their
    type (0 to 1, 0 to 255, 10 to 16 bits) if they fill it, else by their own range; NaN becomes black.

    Args:
        source: a path; an address that is downloaded, such as ``https://...`` or ``s3://...``; an image that
            is open already; or an array or tensor of pixels, (height, width), (height, width, channels) or
            (channels, height, width), of 1, 3 or 4 channels.

    Raises:
        ImageError: if the photo is missing, no image, damaged, too small, far too large or far too long.
    """
    if isinstance(source, Image.Image):
        with _explained("image"):
            return _upright_rgb(source, "image")
    if isinstance(source, str) and is_address(source):
        return decode_image(BytesIO(read_bytes(source, MAX_BYTES, ImageError, PATIENCE)), source)
    if not isinstance(source, str | PathLike):
        with _explained("array"):
            return _upright_rgb(_from_array(source), "array")
    path = Path(source)
    with _explained(str(path)):
        if path.is_dir():
            raise ImageError(f"{path}: is a folder; give image files, e.g. {path}/*.jpg")
        if not path.exists():
            raise ImageError(f"{path}: no such file; check the path")
        if is_pointer(path):
            raise ImageError(f"{path}: {POINTER_REMEDY}")
        return _decode(path, str(path))


def _from_array(source: Any) -> Image.Image:
    """An image of an array or tensor of pixels."""
    if not hasattr(source, "__array__"):
        raise ImageError(
            f"{source!r:.60} is not a photo; give a path, an address, an open image or an array of pixels"
        )
    if hasattr(source, "detach"):  # A tensor; numpy has no bfloat16.
        source = source.detach().cpu()
        source = source.float() if source.is_floating_point() else source
    values = np.asarray(source)
    if values.ndim == 3 and values.shape[0] in (1, 3, 4) and values.shape[2] not in (1, 3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim != 2 and not (values.ndim == 3 and values.shape[2] in (3, 4)):
        raise ImageError(
            f"array of shape {values.shape} is not a photo; give (height, width) or (height, width, 3) pixels"
        )
    _check_sides(values.shape[1], values.shape[0], "array")
    try:
        return Image.fromarray(np.ascontiguousarray(eight_bits(values)))
    except ValueError as error:
        raise ImageError(f"array: {error}; give truth values, integers or floats") from None


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
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to read it; scale it down") from None
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
    _check_sides(*image.size, name)


def _check_sides(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name}: {_TOO_LARGE}")
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"{name}: {width}x{height} pixels is too small to describe; give at least {MIN_SIDE}x{MIN_SIDE}"
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ImageError(
            f"{name}: {width}x{height} pixels is more than {MAX_RATIO} times as long as wide; crop it"
        )


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    _check_size(image, name)
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _scaled(image)
    if image.mode == "La":  # Pillow converts premultiplied grey to nothing else.
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """A grey image of more than eight bits, which Pillow would clip to white or cut to black, in eight."""
    values = np.asarray(image)
    grey = eight_bits(values)
    clear = image.info.get("transparency")  # The one value that stands for nothing.
    if isinstance(clear, int | float):
        grey[values == clear] = 255
    return Image.fromarray(grey)

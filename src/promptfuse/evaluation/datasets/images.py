"""Opening the photos of a data set, on a local path or behind an address."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from promptfuse.errors import ImageError
from promptfuse.evaluation.datasets.addresses import is_address, read_bytes
from promptfuse.models.images import decode_image, load_image

MAX_BYTES = 256 * 1024 * 1024
"""Larger files behind an address are refused: they are read into memory before they are decoded."""


def open_photo(address: str) -> Image.Image:
    """Open a photo as ``load_image`` does: upright, in RGB, transparent parts on white.

    Args:
        address: a local path, or an address that fsspec reads, such as ``s3://bucket/photo.jpg``.

    Raises:
        ImageError: if it is missing, no image, damaged, too small or far too large, or if the package that
            reads such addresses is not installed.
    """
    if not is_address(address):
        return load_image(address)
    return decode_image(BytesIO(read_bytes(address, MAX_BYTES, ImageError)), address)

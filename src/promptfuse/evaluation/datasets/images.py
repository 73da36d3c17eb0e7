"""Opening the photos of a data set, on a local path or behind an address."""

from __future__ import annotations

from PIL import Image

from promptfuse.models.images import load_image


def open_photo(address: str) -> Image.Image:
    """Open a photo as ``load_image`` does: upright, in RGB, transparent parts on white.

    Args:
        address: a local path, or an address such as ``https://...``, or ``s3://bucket/photo.jpg``, which
            fsspec reads.

    Raises:
        ImageError: if it is missing, no image, damaged, too small or far too large, or if the package that
            reads such addresses is not installed.
    """
    return load_image(address)

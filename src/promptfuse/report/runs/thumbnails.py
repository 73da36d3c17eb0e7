"""Small pictures as part of a page."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from PIL import Image, ImageOps

from promptfuse.errors import ImageError
from promptfuse.evaluation.datasets import open_photo
from promptfuse.models.images import MAX_PIXELS

QUALITY = 70


class Thumbnails:
    """Photos as base64 of small JPEGs, made while something else is done in its ``with`` block.

    Args:
        images: paths or addresses.
        side: the most pixels wide and high.
    """

    def __init__(self, images: Sequence[str], side: int = 144) -> None:
        # Pillow decodes without Python's lock, so threads share the work.
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        self._found = self._pool.map(lambda image: _thumbnail(image, side), images)

    def __enter__(self) -> Thumbnails:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error nobody waits for photos.
        self._pool.shutdown(wait=False, cancel_futures=True)

    def all(self) -> list[str]:
        """All of them, in the photos' order, once; empty for those that cannot be read."""
        return list(self._found)


def _thumbnail(image: str, side: int) -> str:
    try:
        photo = _reduced(image, side) or open_photo(image)
    except ImageError:
        return ""
    photo.thumbnail((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def _reduced(image: str, side: int) -> Image.Image | None:
    """A plain local JPEG, decoded to no more pixels than are needed; None for whatever else it is."""
    path = Path(image)
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        return None
    try:
        with Image.open(path, formats=("JPEG",)) as photo:
            large = photo.width * photo.height > MAX_PIXELS
            shrink = side / max(photo.size)
            wanted = (math.ceil(photo.width * shrink), math.ceil(photo.height * shrink))
            if large or photo.mode != "RGB" or photo.draft("RGB", wanted) is None:
                return None
            return ImageOps.exif_transpose(photo)
    except Exception:  # Decoders raise whatever a damaged file leads them to; the careful way tells why.
        return None

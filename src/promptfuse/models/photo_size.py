"""How many pixels an image processor makes of a photo, told before it does."""

from __future__ import annotations

from typing import Any

from PIL import Image

from promptfuse.errors import ImageError
from promptfuse.models.images import MAX_PIXELS


def check_processed(image: Image.Image, processor: Any) -> None:
    """Refuse a photo that the processor would scale up beyond what memory is for.

    Args:
        image: the photo.
        processor: the image processor of the model that is to read it.

    Raises:
        ImageError: if more than ``MAX_PIXELS`` would come of it, as of a long strip whose shorter side is
            scaled to hundreds of pixels.
    """
    pixels = processed_pixels(processor, *image.size)
    if pixels > MAX_PIXELS:
        raise ImageError(
            f"photo of {image.width}x{image.height} pixels: its model would scale it to "
            f"{pixels / 1_000_000:,.0f} megapixels; crop it"
        )


def processed_pixels(processor: Any, width: int, height: int) -> int:
    """The pixels of a photo as it is scaled, before anything is cropped.

    Args:
        processor: an image processor; ``size`` says what it scales to.
        width: of the photo, in pixels.
        height: of the photo, in pixels.
    """
    size = getattr(processor, "size", None)
    if not size or not getattr(processor, "do_resize", True):
        return width * height
    edges = {"shortest_edge": size} if isinstance(size, int) else dict(size)
    short, long = edges.get("shortest_edge"), edges.get("longest_edge")
    if short:
        # Some scale to more, of which they keep this share.
        scale = short / (getattr(processor, "crop_pct", None) or 1) / min(width, height)
        if long:
            scale = min(scale, long / max(width, height))
    elif edges.get("height") and edges.get("width"):
        return int(edges["height"] * edges["width"])
    elif edges.get("max_height") and edges.get("max_width"):
        scale = min(edges["max_height"] / height, edges["max_width"] / width)
    elif long:
        scale = long / max(width, height)
    else:
        return width * height
    return round(width * scale) * round(height * scale)

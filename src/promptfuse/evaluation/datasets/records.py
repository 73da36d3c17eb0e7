"""What a data set is made of: photos with what people wrote about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Photo:
    """One photo of a data set.

    Attributes:
        id: unique in the data set.
        image: a path, or an address such as ``s3://bucket/photo.jpg``.
        references: captions that people wrote; may be empty.
        split: ``train``, ``val``, ``test``, ...; empty if the data set has none.
    """

    id: str
    image: str
    references: tuple[str, ...] = ()
    split: str = ""


@dataclass(frozen=True)
class Dataset:
    """Photos in the order of their file.

    Attributes:
        name: what it is called in reports.
        source: the file or folder that it was read from.
        format: ``karpathy``, ``coco``, ``table`` or ``folder``.
        photos: all of them, or those of the split that was asked for.
    """

    name: str
    source: str
    format: str
    photos: Sequence[Photo] = field(default=(), repr=False)

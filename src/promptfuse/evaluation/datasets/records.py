"""What a data set is made of: photos with what people wrote about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


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
        problems: what is odd in the file but keeps no photo from being used, a line each.
        photo_problems: those of them that are about the files of the photos.
    """

    name: str
    source: str
    format: str
    photos: Sequence[Photo] = field(default=(), repr=False)
    problems: tuple[str, ...] = ()
    photo_problems: tuple[str, ...] = ()

    @property
    def caption_problems(self) -> tuple[str, ...]:
        """The problems that are about the captions."""
        return tuple(problem for problem in self.problems if problem not in self.photo_problems)


@dataclass(slots=True)
class Row:
    """What a reader finds about one photo, before its file is looked for.

    Attributes:
        place: where in the source it is, for messages.
        id: as the source has it.
        names: what the file may be called, relative to the folder of the photos; the likeliest first.
        captions: as the source has them, empty ones too.
        split: empty if the source has none.
    """

    place: str
    id: str
    names: tuple[str, ...]
    captions: list[str]
    split: str = ""

    @property
    def references(self) -> list[str]:
        """The captions without blanks around them; empty ones are left out."""
        return [text for caption in self.captions if (text := caption.strip())]


class PhotoStore(Protocol):
    """Photos that become files when they are needed, such as those within tables."""

    @property
    def places(self) -> Mapping[str, object]:
        """The paths that the photos get, with where each is."""

    def write(self, images: Iterable[str]) -> None:
        """Write those of the given paths that belong to the photos and are missing."""


@dataclass
class Contents:
    """All rows of a source.

    Attributes:
        rows: in the order of the source.
        problems: what is odd in the source, a line each.
        in_tables: photos that are within the source's tables.
        root: the folder of the photos, if the source tells it.
    """

    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    in_tables: PhotoStore | None = None
    root: str | None = None

    @property
    def empty_problems(self) -> list[str]:
        """A line about captions that are empty; none if none is."""
        empty = sum(len(row.captions) - len(row.references) for row in self.rows)
        return [f"{empty:,} empty caption{'s' * (empty > 1)} left out"] if empty else []

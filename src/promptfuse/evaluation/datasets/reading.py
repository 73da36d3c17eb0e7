"""Reading a data set whatever its format, which its content tells."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from promptfuse._utils.addresses import is_address
from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.locate import Locator
from promptfuse.evaluation.datasets.readers import Source, find_reader, readers
from promptfuse.evaluation.datasets.records import Contents, Photo, PhotoStore
from promptfuse.evaluation.datasets.texts import naming


@dataclass
class Scan:
    """A whole source: its photos, and what keeps some of them from being used.

    Attributes:
        format: as detected or as asked for.
        photos: in the order of the source, with captions stripped and empty ones left out.
        problems: what is odd, a line each.
        photo_problems: those of them that are about the files of the photos.
        missing: indices of photos whose files are missing; addresses are not looked up.
        duplicate_ids: ids that several photos have, with the places of the first two.
        looked_in: the folders where the photos may be.
        in_tables: photos that are within tables; they have to be written before they are opened.
    """

    format: str
    photos: list[Photo]
    problems: list[str] = field(default_factory=list)
    photo_problems: list[str] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    duplicate_ids: dict[str, tuple[str, str]] = field(default_factory=dict)
    looked_in: list[str] = field(default_factory=list)
    in_tables: PhotoStore | None = field(default=None, repr=False)

    def write_photos(self, indices: Iterable[int]) -> None:
        """Write photos to files that are within tables.

        Args:
            indices: of the photos that are to be opened.

        Raises:
            ConfigError: if they cannot be written.
        """
        if self.in_tables is not None:
            self.in_tables.write(self.photos[index].image for index in indices)


def scan(
    source: str, *, format: str = "auto", images: str | None = None, keep_rejected: bool = False
) -> Scan:
    """Read a source and look for its photos; nothing is decoded.

    Args:
        source: a local path, or an address.
        format: one of ``readers``, or ``auto``.
        images: the folder of the photos; by default that of the source and its usual subfolders.
        keep_rejected: whether captions count that the data set marks as rejected.

    Raises:
        ConfigError: if it cannot be read, is of no format that is known, has a wrong field or no photos.
    """
    if format not in (known := [*readers, "auto"]):
        raise ConfigError(f"no format {format!r} of data sets; {nearest(format, known)}")
    with _uncollected():
        return _scan(source, format, images, keep_rejected)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Hold the garbage collector: it would go through millions of captions again and again for nothing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _scan(source: str, format: str, images: str | None, keep_rejected: bool) -> Scan:
    with naming(source):
        given = Source(source)
        found, reader = find_reader(given, format)
        contents = reader.read(given, keep_rejected)
    if not contents.rows:
        raise ConfigError(f"{source}: {_nothing(source, found)}")
    if found == "folder":
        if images is not None:
            raise ConfigError(f"{source}: is itself a folder of photos; leave out --images {images}")
        images = source
    result = _assemble(found, contents, Locator(source, images or contents.root))
    if (photos := contents.in_tables) is not None:
        result.missing = [
            index for index in result.missing if result.photos[index].image not in photos.places
        ]
        result.in_tables = photos
    return result


def _nothing(source: str, found: str) -> str:
    if found != "folder":
        return "has no photos; give a file with at least one"
    if not is_address(source):
        files = sorted(
            path.name
            for path in Path(source).iterdir()
            if path.suffix in (".json", ".jsonl", ".csv", ".tsv", ".parquet")
        )
        if files:
            return f"has no photos; did you mean the file {files[0]} in it?"
    return "has no photos; give a folder with JPEG, PNG or WebP files"


def _assemble(found: str, contents: Contents, locator: Locator) -> Scan:
    paths, missing, ambiguous = locator.locate(contents.rows)
    result = Scan(found, [], list(contents.problems), missing=missing, looked_in=locator.roots)
    places: dict[str, str] = {}
    for row, path in zip(contents.rows, paths, strict=True):
        if row.id in places:
            result.duplicate_ids.setdefault(row.id, (places[row.id], row.place))
        places.setdefault(row.id, row.place)
        result.photos.append(Photo(row.id, path, tuple(row.references), row.split))
    if ambiguous:
        taken, other = ambiguous
        result.photo_problems.append(
            f"another folder has photos of these names: using {taken}, not {other}; choose with --images DIR"
        )
        result.problems += result.photo_problems
    result.problems += contents.empty_problems
    return result

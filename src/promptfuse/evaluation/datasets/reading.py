"""Reading a data set whatever its format, which its content tells."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptfuse._utils.addresses import is_address, is_folder, join
from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.coco import read_coco
from promptfuse.evaluation.datasets.documents import (
    JSON_SUFFIXES,
    Record,
    csv_records,
    headerless_records,
    is_parquet,
    json_lines,
    json_records,
    parquet_records,
    read_json,
)
from promptfuse.evaluation.datasets.folder import files_of, is_photo, read_folder
from promptfuse.evaluation.datasets.hugging_face import (
    TablePhotos,
    is_hub_name,
    is_saved,
    name_and_split,
    read_hugging_face,
)
from promptfuse.evaluation.datasets.imagefolder import read_metadata
from promptfuse.evaluation.datasets.karpathy import read_karpathy
from promptfuse.evaluation.datasets.locate import Locator
from promptfuse.evaluation.datasets.records import Contents, Photo
from promptfuse.evaluation.datasets.rows import IMAGE_COLUMNS, shown
from promptfuse.evaluation.datasets.table import read_table
from promptfuse.evaluation.datasets.texts import decode, naming, read_data

FORMATS = {
    "karpathy": "JSON of Karpathy's splits: images[] with filename, split and sentences[].raw",
    "coco": "JSON of COCO captions: images[] with id and file_name, annotations[] with image_id and caption",
    "table": "CSV, TSV, JSON lines, a JSON list or Parquet with a column image, and caption or captions",
    "folder": "a folder of photos, with metadata.jsonl, .csv or .parquet as Hugging Face has it",
    "datasets": "hf:NAME on the Hugging Face hub, or what its package datasets saved to a folder",
}
"""What can be read, by name."""

_SHORT = "karpathy and coco (JSON), table (CSV, TSV, JSON lines, JSON list), folder"


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
    in_tables: TablePhotos | None = field(default=None, repr=False)

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
        format: one of ``FORMATS``, or ``auto``.
        images: the folder of the photos; by default that of the source and its usual subfolders.
        keep_rejected: whether captions count that the data set marks as rejected.

    Raises:
        ConfigError: if it cannot be read, is of no format that is known, has a wrong field or no photos.
    """
    if format not in (*FORMATS, "auto"):
        raise ConfigError(f"no format {format!r} of data sets; {nearest(format, [*FORMATS, 'auto'])}")
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
    in_tables: TablePhotos | None = None
    with naming(source):
        if is_hub_name(source) or (format in ("auto", "datasets") and is_saved(source)):
            if format not in ("auto", "datasets"):
                raise ConfigError(f"is read by the package datasets; leave out the format {format}")
            contents, in_tables = read_hugging_face(source, keep_rejected)
            found = "datasets"
        else:
            found, contents = _read(source, format, keep_rejected)
    if not contents.rows:
        raise ConfigError(f"{source}: {_nothing(source, found)}")
    if found == "folder":
        if images is not None:
            raise ConfigError(
                f"{source}: is a folder of photos itself; leave out the folder of its photos, {images}"
            )
        images = source
    if in_tables is None:
        return _assemble(found, contents, Locator(source, images))
    folder = name_and_split(source)[0]
    result = _assemble(
        found, contents, Locator(source, images or (folder if Path(folder).is_dir() else None))
    )
    result.missing = [index for index in result.missing if result.photos[index].image not in in_tables.places]
    result.in_tables = in_tables
    return result


def _read(source: str, format: str, keep_rejected: bool) -> tuple[str, Contents]:
    remote = is_address(source)
    if is_folder(source, ConfigError) if remote else Path(source).is_dir():
        if format not in ("auto", "folder"):
            raise ConfigError(f"is a folder; give the file of the data set, or leave out the format {format}")
        return "folder", _folder(source, keep_rejected)
    if format == "folder":
        raise ConfigError("no such folder; check the path, or leave out the format folder")
    data = read_data(source)
    if is_parquet(data):
        if format not in ("auto", "table"):
            raise ConfigError(f"is a Parquet table; leave out the format {format}")
        return "table", read_table(parquet_records(data), keep_rejected)
    text = _text(source, data)
    if not text.strip():
        raise ConfigError("is empty; give a file with photos")
    found, records = _parse(source, text, format)
    if found == "karpathy":
        return found, read_karpathy(records, keep_rejected)
    if found == "coco":
        return found, read_coco(records, keep_rejected)
    return found, read_table(records, keep_rejected)


def _folder(source: str, keep_rejected: bool) -> Contents:
    """The photos of a folder, with the captions of its metadata."""
    files = files_of(source)

    def records(name: str) -> Iterator[Record]:
        file = join(source, name) if is_address(source) else str(Path(source, name))
        data = read_data(file)
        if is_parquet(data):
            return parquet_records(data)
        text = decode(data, name, "save it as JSON lines or CSV")
        return _parse(file, text, "table")[1] if text.strip() else iter(())

    return read_metadata(read_folder(files), files, records, keep_rejected)


def _text(source: str, data: bytes) -> str:
    if is_photo(Path(source).name) and data.lstrip()[:1] not in (b"{", b"["):
        raise ConfigError("is a photo, not a data set; give its folder, or use promptfuse caption")
    return decode(data, source, f"give a text file or a folder (formats: {_SHORT})")


def _parse(source: str, text: str, format: str) -> tuple[str, Any]:
    """The format, and the parsed document of Karpathy's and COCO's, the records of a table."""
    begin = text.lstrip()
    if begin[0] not in "{[":
        if format in ("karpathy", "coco"):
            raise ConfigError(
                f"not JSON, which the format {format} is; leave out the format, or check the file"
            )
        if Path(source).suffix.lower() in JSON_SUFFIXES:
            raise ConfigError(f"not valid JSON (it begins with {shown(begin[:20])}); correct it")
        return "table", headerless_records(text) or csv_records(text, source)
    # Karpathy's files have every caption a second time, cut into words: half of the memory.
    document, is_lines = read_json(text, source, hook=_without_tokens)
    if format == "auto":
        format = "table" if is_lines else _shape(document)
    if format != "table":
        if is_lines:
            raise ConfigError(
                f"JSON lines, not of the format {format}; leave out the format to have it detected"
            )
        return format, document
    if is_lines:
        return format, json_lines(text)
    if isinstance(document, dict) and _is_rows(document.get("data")):
        document = document["data"]  # As TextCaps has it.
    return format, json_records(document if isinstance(document, list) else [document])


def _without_tokens(fields: dict[str, Any]) -> dict[str, Any]:
    if "raw" in fields:
        fields.pop("tokens", None)
    return fields


def _shape(document: Any) -> str:
    """The format of a JSON document.

    Raises:
        ConfigError: if it is of none that is known.
    """
    if isinstance(document, list):
        return "table"
    images = document.get("images")
    if isinstance(images, list):
        first = images[0] if images and isinstance(images[0], dict) else {}
        if "annotations" in document or "file_name" in first:
            return "coco"
        if not images or not first.keys().isdisjoint(("sentences", "filename", "split")):
            return "karpathy"
    elif not {str(key).strip().lower() for key in document}.isdisjoint(IMAGE_COLUMNS):
        return "table"  # JSON lines with one line.
    elif _is_rows(document.get("data")):
        return "table"
    raise ConfigError(f"of no known format (it has {shown(sorted(document))}); formats: {_SHORT}")


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


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
            f"another folder has photos of such names: {taken} is taken, not {other}; --images DIR decides"
        )
        result.problems += result.photo_problems
    result.problems += contents.empty_problems
    return result

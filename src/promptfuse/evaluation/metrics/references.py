"""What people wrote about photos, from files of anybody's making."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from promptfuse._utils.addresses import is_address, is_folder
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import read_dataset
from promptfuse.evaluation.datasets.columns import CAPTION_COLUMNS, NoImageColumnError
from promptfuse.evaluation.datasets.documents import JSON_SUFFIXES, Record, csv_records, read_records
from promptfuse.evaluation.datasets.folder import is_photo
from promptfuse.evaluation.datasets.rows import ID_COLUMNS, IMAGE_COLUMNS, IdRow, as_fields, as_list, parse
from promptfuse.evaluation.datasets.table import read_table
from promptfuse.evaluation.datasets.texts import decode, naming, read_data
from promptfuse.evaluation.metrics.files import only_once
from promptfuse.evaluation.metrics.photo_files import find_photos

_IDS = (*ID_COLUMNS, *IMAGE_COLUMNS)
_FORMATS = "give COCO's captions as JSON, JSON lines of {id, references}, or a data set"


@dataclass
class Referenced:
    """What people wrote about photos.

    Attributes:
        texts: by the photos' ids.
        images: paths or addresses of the photos, where the file names them.
        notices: what is odd in the captions, a line each.
        photo_notices: what is odd with the files of the photos.
    """

    texts: dict[str, list[str]] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    photo_notices: tuple[str, ...] = ()


def read_references(
    source: str, images: str | None = None, *, split: str | None = None, keep_rejected: bool = False
) -> Referenced:
    """What people wrote, from JSON lines of ``{id, references}`` or any data set.

    Args:
        source: JSON lines, a JSON list or CSV of ids with captions; a JSON object of captions by id; COCO's
            captions also without the names of its photos; or whatever ``read_dataset`` takes.
        images: the folder of the photos.
        split: of a data set, only photos of this split.
        keep_rejected: whether captions count that the data set marks as rejected.

    Raises:
        ConfigError: if it cannot be read, a photo occurs twice, or two files match one id.
    """
    text = _json_text(source)
    own = None
    if text is not None:
        with naming(source):
            own = _own_references(source, text, keep_rejected)
    if own is None:
        try:
            dataset = read_dataset(source, images=images, split=split, keep_rejected=keep_rejected)
        except NoImageColumnError:
            if text is not None:
                raise
            with naming(source):
                own = _of_csv(source, keep_rejected)
        else:
            return Referenced(
                {photo.id: list(photo.references) for photo in dataset.photos},
                {photo.id: photo.image for photo in dataset.photos},
                dataset.caption_problems,
                dataset.photo_problems,
            )
    if images is not None:
        own.images = find_photos(images, own.texts)
        lost = [id_ for id_ in own.texts if id_ not in own.images]
        if lost:
            count = f"{len(lost):,} of {len(own.texts):,} photos are not in {images}, e.g. {lost[0]!r}"
            own.photo_notices = (count,)
    return own


def _json_text(source: str) -> str | None:
    """The text of a file that begins as JSON does; None for anything else, which a data set may be."""
    path = Path(source)
    if is_address(source):
        # What is large there is not fetched to look at it.
        if path.suffix.lower() not in JSON_SUFFIXES or is_folder(source, ConfigError):
            return None
    elif not path.is_file():  # A pipe can be read only once.
        return None
    if is_photo(path.name) or path.suffix.lower() == ".parquet":
        return None
    text = decode(read_data(source), source, _FORMATS)
    return text if text.lstrip()[:1] in ("{", "[") else None


def _own_references(source: str, text: str, keep_rejected: bool) -> Referenced | None:
    """References by id of the formats that name no photos; None if it is a data set."""
    document, found = read_records(text, source, _FORMATS, _IDS, "names the photos")
    if isinstance(document, dict):
        if "annotations" in document and not _names_photos(document.get("images")):
            return _grouped(_annotations(document["annotations"]), keep_rejected)
        if document.keys() & {"images", "annotations"}:
            return None
        if document.keys().isdisjoint((*CAPTION_COLUMNS, *ID_COLUMNS)) and _is_by_id(document):
            return _grouped(_by_id(document), keep_rejected, "field")
    records = list(found)
    if not records or any(fields.keys() & set(IMAGE_COLUMNS) for _, fields in records):
        return None  # With a column that names the photos it is a data set.
    without = next((record for record in records if record[1].keys().isdisjoint(CAPTION_COLUMNS)), None)
    if without is None:
        return _grouped(records, keep_rejected)
    place, fields = without
    if fields.keys().isdisjoint(ID_COLUMNS):
        return None
    raise ConfigError(f"{place}: no captions (found {', '.join(fields)}); call them 'captions'")


def _annotations(rows: Any) -> Iterator[Record]:
    for number, row in enumerate(as_list(rows, "annotations")):
        place = f"annotations[{number}]"
        yield place, as_fields(row, place)


def _names_photos(images: Any) -> bool:
    """Whether a list of COCO's says where all photos are; ids are enough to score captions."""
    return isinstance(images, list) and bool(images) and all(
        isinstance(image, dict) and "file_name" in image for image in images
    )  # fmt: skip


def _is_by_id(document: Mapping[str, Any]) -> bool:
    """Whether all values of an object are captions: a list, one, or fields."""
    return bool(document) and all(
        not value.keys().isdisjoint(CAPTION_COLUMNS)
        if isinstance(value, dict)
        else isinstance(value, str | list)
        for value in document.values()
    )


def _by_id(document: Mapping[str, Any]) -> Iterator[Record]:
    for key, value in document.items():
        column = "captions" if isinstance(value, list) else "caption"
        yield f"{key!r:.60}", {**(value if isinstance(value, dict) else {column: value}), "image_id": key}


def _of_csv(source: str, keep_rejected: bool) -> Referenced:
    """References of a CSV file that has ids and no photos."""
    records = csv_records(decode(read_data(source), source, _FORMATS), source, _IDS)
    first = next(records, None)
    if first is None or first[1].keys().isdisjoint(CAPTION_COLUMNS):
        found = f" (found {', '.join(first[1])})" if first else ""
        raise ConfigError(f"no column of captions{found}; call it 'caption'")
    return _grouped(chain([first], records), keep_rejected)


def _grouped(records: Iterable[Record], keep_rejected: bool, what: str = "column") -> Referenced:
    """References by id, from a list a photo, or from one or more rows with one caption each."""
    rows = (
        (place, {**fields, "image": parse(IdRow.model_validate, fields, place, _FORMATS).id})
        for place, fields in records
    )
    contents = read_table(rows, keep_rejected, what)
    texts: dict[str, list[str]] = {}
    for row in contents.rows:
        only_once(row.id, row.place, texts)
        texts[row.id] = row.references
    return Referenced(texts, notices=(*contents.problems, *contents.empty_problems))

"""Tables of photos and captions: CSV, TSV, JSON lines and JSON lists."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.columns import (
    CAPTION_COLUMNS,
    ID_COLUMNS,
    IMAGE_COLUMNS,
    SPLIT_COLUMNS,
    NoImageColumnError,
    Unread,
    captions_in,
)
from promptfuse.evaluation.datasets.fields import as_fields, as_list, as_text, shown
from promptfuse.evaluation.datasets.records import Contents, Row
from promptfuse.evaluation.datasets.rejected import Rejected
from promptfuse.evaluation.datasets.texts import first_line, numbered_lines

DELIMITERS = (",", "\t", ";", "|")

_FIELD_LIMIT = 1_000_000
"""Characters of a field; a quotation mark without its second would make one of the rest of the file."""

Record = tuple[str, Mapping[str, Any]]
"""A place in the file, and the fields by the names of their columns in lower case."""


def read_table(records: Iterable[Record], keep_rejected: bool = False) -> Contents:
    """The photos of a table, in the order in which they come first.

    Rows with one caption each are grouped by photo: by id and image, or by image where there are no ids. The
    id is the image as it is written where there is no column for it. Columns that look like captions and are
    not read are among the problems, and so is the number of rejected captions.

    Args:
        records: the rows.
        keep_rejected: whether captions that the data set marks as rejected count.

    Raises:
        ConfigError: if no column names the photos, a value is of a wrong type, or rows of one photo
            contradict each other.
    """
    contents, unread, rejected = Contents(), Unread(), Rejected(keep_rejected)
    grouped: dict[tuple[str, str], Row] = {}
    for place, fields in records:
        column = _column(fields, IMAGE_COLUMNS)
        if column is None:
            raise NoImageColumnError(
                f"{place}: no column names the photo; call it one of {', '.join(IMAGE_COLUMNS)} "
                f"(found {', '.join(fields) or 'none'})"
            )
        image = as_text(fields[column], f"{place}, {column}")
        if not image:
            raise ConfigError(f"{place}: the column {column!r} is empty; name the photo, or remove the row")
        image_id = _text(place, fields, ID_COLUMNS) or image
        split = _text(place, fields, SPLIT_COLUMNS)
        single, captions, read = captions_in(fields, place, rejected)
        unread.look(fields, read)
        if captions and rejected.drops(fields):
            captions = []
        before = grouped.get((image_id, image))
        if before is not None and not single and (captions or not before.captions):
            before = None  # The photo once more, not a row without its caption beside others.
        if before is None:
            row = Row(place, image_id, _names(image), captions, split)
            contents.rows.append(row)
            if single or not captions:
                grouped[image_id, image] = row
        elif before.split != split:
            raise ConfigError(
                f"{place}: {image} is in the split {split!r} here and in {before.split!r} in {before.place}; "
                "put a photo into one split"
            )
        else:
            before.captions.extend(captions)
    contents.problems += [*rejected.problems(), *unread.problems()]
    return contents


def _names(image: str) -> tuple[str, ...]:
    """What the file of a photo may be called: TextCaps writes names without their ending."""
    return (image,) if PurePosixPath(image).suffix or "://" in image else (image, f"{image}.jpg")


def csv_records(
    text: str, delimiter: str | None = None, columns: Sequence[str] = IMAGE_COLUMNS
) -> Iterator[Record]:
    """The rows of a CSV text with a header.

    Args:
        text: with any line ends.
        delimiter: by default that of ``DELIMITERS`` with which the header has one of the columns.
        columns: those that name the photos.

    Raises:
        ConfigError: if the header names no column of photos or one column twice, a row is longer than the
            header, or quotation marks do not pair.
    """
    delimiter = delimiter or _delimiter(text, columns)
    before = csv.field_size_limit(_FIELD_LIMIT)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            place = f"line {reader.line_num}"
            if delimiter == "\t" and any("\n" in cell and "\t" in cell for cell in cells):
                raise ConfigError(
                    f"{place}: a quotation mark at the beginning of a value takes other rows along; "
                    "write quotation marks twice and the value in quotes"
                )
            if not header:
                header = [cell.strip().lower() for cell in cells]
                twice = next((name for name in header if name and header.count(name) > 1), None)
                if twice is not None:
                    raise ConfigError(f"{place}: the column {twice!r} occurs twice; rename one")
                continue
            if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
                raise ConfigError(
                    f"{place}: {len(cells)} columns, but the header has {len(header)}; "
                    f"put values that contain {delimiter!r} in quotes"
                )
            if len(cells) < len(header) and not set(header[len(cells) :]).isdisjoint(CAPTION_COLUMNS):
                raise ConfigError(
                    f"{place}: {len(cells)} columns, but the header has {len(header)}; a {delimiter!r} is "
                    "missing in front of the caption"
                )
            yield place, dict(zip(header, cells, strict=False))
    except csv.Error as error:
        raise ConfigError(
            f"line {reader.line_num}: not valid CSV ({error}); write quotation marks twice and the "
            "value in quotes, or give JSON lines"
        ) from None
    finally:
        csv.field_size_limit(before)


def json_lines(text: str) -> Iterator[Record]:
    """The objects of JSON lines; empty lines are passed over.

    Raises:
        ConfigError: if a line is no JSON object.
    """
    for number, line in numbered_lines(text):
        yield _record(_parse_line(line, number), f"line {number}")


def json_records(rows: Any) -> Iterator[Record]:
    """The objects of a JSON list.

    Raises:
        ConfigError: if it is no list of objects.
    """
    for number, row in enumerate(as_list(rows, "top level"), 1):
        yield _record(row, f"row {number}")


def _parse_line(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)[:80]
        raise ConfigError(f"line {number}: not valid JSON ({reason}); correct it") from None


def _record(value: Any, place: str) -> Record:
    return place, {str(key).strip().lower(): item for key, item in as_fields(value, place).items()}


def _delimiter(text: str, columns: Sequence[str]) -> str:
    header = first_line(text.lstrip()).lower()
    for delimiter in DELIMITERS:
        names = {cell.strip().strip('"') for cell in header.split(delimiter)}
        if not names.isdisjoint(columns):
            return delimiter
    raise NoImageColumnError(
        f"line 1: no column names the photos in the header {shown(header.strip())}; "
        f"let the first line call it one of {', '.join(columns)}"
    )


def _column(fields: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The first of the names that is there with a value, else the first that is there."""
    present = [name for name in names if name in fields]
    return next((name for name in present if fields[name] not in (None, "")), (*present, None)[0])


def _text(place: str, fields: Mapping[str, Any], names: Iterable[str]) -> str:
    column = _column(fields, names)
    return "" if column is None else as_text(fields[column], f"{place}, {column}")

"""Files of JSON, JSON lines, CSV, TSV and Parquet, as documents and records."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.columns import CAPTION_COLUMNS, NoImageColumnError
from promptfuse.evaluation.datasets.rows import IMAGE_COLUMNS, as_fields, as_list, shown
from promptfuse.evaluation.datasets.texts import first_line, numbered_lines

Record = tuple[str, Mapping[str, Any]]
"""A place in the file, and the fields by the names of their columns in lower case."""

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
DELIMITERS = (",", "\t", ";", "|")

_FIELD_LIMIT = 1_000_000
"""Characters of a field; a quotation mark without its second would make one of the rest of the file."""

_PARQUET_ROWS = 10_000
"""Rows that are Python objects at the same time."""


def read_json(
    text: str, source: str, remedy: str = "correct it", hook: Callable[[dict[str, Any]], Any] | None = None
) -> tuple[Any, bool]:
    """A JSON document, or the first line of JSON lines; and whether it is the latter.

    Args:
        text: begins with a bracket, after blanks.
        source: the file, whose ending may say that it is JSON lines.
        remedy: the end of the message about a document that is not valid.
        hook: called with each object, as `json.loads` does.

    Raises:
        ConfigError: if it is not valid JSON. Further lines of JSON lines are not read here.
    """
    text = text.removeprefix("\ufeff").strip()
    first = first_line(text)
    if first.rstrip().endswith("}") and len(first) < len(text):
        # Several lines, of which the first is complete: JSON lines.
        try:
            return json.loads(first, object_hook=hook), True
        except (ValueError, RecursionError):
            pass
    try:
        return json.loads(text, object_hook=hook), False
    except (ValueError, RecursionError) as error:
        if Path(source).suffix.lower() in (".jsonl", ".ndjson"):
            return None, True
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg}, line {error.lineno}, column {error.colno}"
        else:
            reason = str(error).splitlines()[0][:80]
        raise ConfigError(f"not valid JSON ({reason}); {remedy}") from None


def read_records(
    text: str, source: str, remedy: str, columns: Sequence[str], what: str
) -> tuple[Any, Iterator[Record]]:
    """A file's JSON document, None if it is JSON lines or a table; and its records.

    Args:
        text: of the file.
        source: the file.
        remedy: the end of the message about a document that is not valid.
        columns: of which a table's header has one at least.
        what: says what they are, for messages.

    Raises:
        ConfigError: if it is neither JSON nor a table, or an object has a key twice.
    """
    if text.lstrip()[:1] not in ("{", "[") and Path(source).suffix.lower() not in JSON_SUFFIXES:
        return None, csv_records(text, source, columns, what)
    document, is_lines = read_json(text, source, remedy)
    if is_lines:
        return None, json_lines(text)
    if not isinstance(document, dict):
        return document, json_records(document, "entry")
    if document.keys().isdisjoint(("images", "annotations")):  # Large data sets are not read once more.
        _check_unique_keys(text)
    return document, json_records([document], "line")


def _check_unique_keys(text: str) -> None:
    """Raise ``ConfigError`` if a JSON object has a key twice, of which a dict keeps the last."""
    often = Counter(key for key, _ in json.loads(text.strip().removeprefix("\ufeff"), object_pairs_hook=list))
    for key, count in often.items():
        if count > 1:
            raise ConfigError(f"{key!r} occurs twice; keep one entry for each photo")


def json_lines(text: str) -> Iterator[Record]:
    """The objects of JSON lines; empty lines are passed over.

    Raises:
        ConfigError: if a line is not a JSON object.
    """
    for number, line in numbered_lines(text):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)[:80]
            raise ConfigError(f"line {number}: not valid JSON ({reason}); correct it") from None
        yield _record(value, f"line {number}")


def json_records(rows: Any, what: str = "row") -> Iterator[Record]:
    """The objects of a JSON list.

    Raises:
        ConfigError: if it is not a list of objects.
    """
    for number, row in enumerate(as_list(rows, "top level"), 1):
        yield _record(row, f"{what} {number}")


def _record(value: Any, place: str) -> Record:
    return place, {str(key).strip().lower(): item for key, item in as_fields(value, place).items()}


def csv_records(
    text: str, source: str = "", columns: Sequence[str] = IMAGE_COLUMNS, what: str = "names the photos"
) -> Iterator[Record]:
    """The rows of a CSV text with a header.

    Args:
        text: with any line ends.
        source: the file; tabs part the values of a ``.tsv``, and elsewhere that of ``DELIMITERS`` with which
            the header has one of the columns.
        columns: of which the header has one at least.
        what: says what they are, for messages.

    Raises:
        ConfigError: if the header has none of the columns or one column twice, a row is longer than the
            header, or quotation marks do not pair.
    """
    delimiter = "\t" if source.lower().endswith(".tsv") else _delimiter(text, columns, what)
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
                    f"{place}: a quotation mark at the beginning of a value swallows the rows after it; "
                    "write quotation marks twice and the value in quotes"
                )
            if not header:
                header = [cell.strip().lower() for cell in cells]
                twice = next((name for name in header if name and header.count(name) > 1), None)
                if twice is not None:
                    raise ConfigError(f"{place}: the column {twice!r} occurs twice; rename one")
                continue
            if problem := _wrong_length(cells, header, delimiter):
                raise ConfigError(
                    f"{place}: {len(cells)} columns, but the header has {len(header)}; {problem}"
                )
            yield place, dict(zip(header, cells, strict=False))
    except csv.Error as error:
        raise ConfigError(
            f"line {reader.line_num}: not valid CSV ({error}); write quotation marks twice and the "
            "value in quotes, or give JSON lines"
        ) from None
    finally:
        csv.field_size_limit(before)


def _wrong_length(cells: Sequence[str], header: Sequence[str], delimiter: str) -> str:
    """The remedy for a row with too many or too few values; empty if it is as it should be."""
    if any(cell.strip() for cell in cells[len(header) :]):
        return f"put values that contain {delimiter!r} in quotes"
    if not set(header[len(cells) :]).isdisjoint(CAPTION_COLUMNS):
        return f"a {delimiter!r} is missing before the caption"
    return ""


def _delimiter(text: str, columns: Sequence[str], what: str) -> str:
    header = first_line(text.lstrip()).lower()
    for delimiter in DELIMITERS:
        names = {cell.strip().strip('"') for cell in header.split(delimiter)}
        if not names.isdisjoint(columns):
            return delimiter
    raise NoImageColumnError(
        f"line 1: no column {what} in the header {shown(header.strip())}; "
        f"let the first line call it one of {', '.join(columns)}"
    )


_TOKEN = re.compile(r"(?P<image>[^\t]*\.\w{2,5}(?:\.\d)?)#\d+\t(?P<caption>.*)", re.DOTALL)
"""``1000092795.jpg#0	Two young guys ...``, of Flickr8k.token.txt and results_20130124.token."""

_LINK = re.compile(r"(?P<caption>[^\t]+)\t(?P<image>https?://\S+)\s*", re.DOTALL)
"""``a very typical bus station	http://...``, of Conceptual Captions."""


def headerless_records(text: str) -> Iterator[Record] | None:
    """The rows of Flickr's tokens or Conceptual Captions, whose tables have no header; None if it is neither.

    Raises:
        ConfigError: if a later line has another form.
    """
    first = [line for _, line in islice(numbered_lines(text), 3)]
    form = next((one for one in (_TOKEN, _LINK) if first and all(map(one.fullmatch, first))), None)
    return None if form is None else _matches(text, form)


def _matches(text: str, form: re.Pattern[str]) -> Iterator[Record]:
    for number, line in numbered_lines(text):
        match = form.fullmatch(line)
        if match is None:
            raise ConfigError(f"line {number}: its format differs from the lines before; correct it")
        # Flickr8k has a photo whose name is followed by a figure: 2258277193_586949ec62.jpg.1.
        image = re.sub(r"(\.\w{2,5})\.\d$", r"\1", match["image"])
        yield f"line {number}", {"image": image, "caption": match["caption"]}


def is_parquet(data: bytes) -> bool:
    """Whether these are the bytes of a Parquet file."""
    return data[:4] == b"PAR1"


def parquet_records(data: bytes) -> Iterator[Record]:
    """The rows of a Parquet table with their places; columns with bytes, such as photos, are left out.

    Raises:
        ConfigError: if it cannot be read, or has its photos within itself.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError("is a Parquet table; pip install pyarrow, or save it as JSON lines") from None
    try:
        file = pq.ParquetFile(BytesIO(data))
        names = [field.name for field in file.schema_arrow if not _has_bytes(pa, field.type)]
        known = {str(name).strip().lower() for name in names}
        held = [name for name in file.schema_arrow.names if name not in names]
        if known.isdisjoint(IMAGE_COLUMNS) and held:
            raise ConfigError(
                f"the column {held[0]!r} contains the photos themselves; save them as files, or give hf:FILE"
            )
        number = 0
        for batch in file.iter_batches(_PARQUET_ROWS, columns=names):
            for row in batch.to_pylist():
                number += 1
                yield _record(row, f"row {number}")
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"not a Parquet table that can be read ({str(error)[:80]!r})") from None


def _has_bytes(pa: Any, kind: Any) -> bool:
    """Whether values of a type hold bytes."""
    if pa.types.is_struct(kind):
        return any(_has_bytes(pa, kind.field(index).type) for index in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _has_bytes(pa, kind.value_type)
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )

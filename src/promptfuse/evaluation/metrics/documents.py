"""JSON and CSV of predictions and references: their records, and the photos' ids in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.columns import ID_COLUMNS, IMAGE_COLUMNS
from promptfuse.evaluation.datasets.fields import as_fields, as_list, as_text
from promptfuse.evaluation.datasets.table import csv_records
from promptfuse.evaluation.datasets.texts import first_line, numbered_lines

IDS = (*ID_COLUMNS, *IMAGE_COLUMNS)
"""What names a photo."""

Record = tuple[str, dict[str, Any]]
"""A place in the file, and the fields, by names in lower case."""


def document_of(path: Path, text: str, formats: str) -> Any:
    """The file as one JSON document, or None if it is JSON lines.

    Raises:
        ConfigError: if it is neither, or an object names a photo twice; ``formats`` says what to give.
    """
    text = text.strip()
    first = first_line(text)
    if len(first) < len(text) and first.rstrip().endswith("}"):
        try:
            json.loads(first)
        except (ValueError, RecursionError):
            pass
        else:
            return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            return None
        reason = (
            f"{error.msg}, line {error.lineno}"
            if isinstance(error, json.JSONDecodeError)
            else "too deep"
            if isinstance(error, RecursionError)
            else str(error)[:60]
        )
        raise ConfigError(f"{path}: not valid JSON ({reason}); {formats}") from None
    if isinstance(found, dict) and found.keys().isdisjoint(("images", "annotations")):
        # Texts by id, of which a dict keeps the last; a large data set is not gone through once more.
        often = Counter(key for key, _ in json.loads(text, object_pairs_hook=list))
        for key in (key for key, count in often.items() if count > 1):
            raise ConfigError(f"{path}: {key!r} occurs a second time; keep one entry a photo")
    return found


def records_of(path: Path, text: str, document: Any) -> Iterator[Record]:
    """The objects of a JSON list or of JSON lines, or the only one, with their places.

    Raises:
        ConfigError: if something in it is no object.
    """
    if document is None:
        yield from _lines(path, text)
    elif isinstance(document, dict):
        yield f"{path}: line 1", _lowered(document)
    else:
        for number, row in enumerate(as_list(document, str(path)), 1):
            place = f"{path}: entry {number}"
            yield place, _lowered(as_fields(row, place))


def csv_of(path: Path | str, text: str) -> Iterator[Record]:
    """The rows of a CSV or TSV file with a header that names the photos or their ids.

    Raises:
        ConfigError: if it is none.
    """
    delimiter = "\t" if str(path).lower().endswith(".tsv") else None
    try:
        for place, fields in csv_records(text, delimiter, IDS):
            yield f"{path}: {place}", dict(fields)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _lines(path: Path, text: str) -> Iterator[Record]:
    for number, line in numbered_lines(text):
        place = f"{path}: line {number}"
        try:
            yield place, _lowered(as_fields(json.loads(line), place))
        except (ValueError, RecursionError):
            raise ConfigError(f"{place}: not valid JSON; correct it") from None


def _lowered(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key).strip().lower(): value for key, value in fields.items()}


def id_of(fields: Mapping[str, Any], place: str, formats: str) -> str:
    """The id of the photo that a record is about.

    Raises:
        ConfigError: if it has none; ``formats`` says what to give.
    """
    key = next((name for name in IDS if fields.get(name) not in (None, "")), None)
    id_ = as_text(fields[key], place) if key is not None else ""
    if not id_:
        raise ConfigError(f"{place}: no id of the photo; {formats}")
    return id_


def only_once(id_: str, place: str, *seen: Container[str]) -> None:
    """Raise an error if an id was there before."""
    if any(id_ in one for one in seen):
        raise ConfigError(f"{place}: {id_!r} occurs a second time; keep one entry a photo")

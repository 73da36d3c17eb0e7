"""Texts with labels, from files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptfuse._utils.addresses import is_address
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.columns import (
    CAPTION_COLUMNS,
    SPLIT_COLUMNS,
    NoImageColumnError,
    captions_in,
)
from promptfuse.evaluation.datasets.fields import as_text
from promptfuse.evaluation.datasets.rejected import Rejected
from promptfuse.evaluation.datasets.table import csv_records
from promptfuse.evaluation.datasets.texts import decode, first_line, numbered_lines, read_data
from promptfuse.evaluation.metrics.documents import document_of, records_of

LABEL_COLUMNS = ("label", "sentiment", "class")
"""Columns of labels, the first that is there."""

TRAINING = ("train", "training", "restval")
HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing")
"""Splits that a judge trains on, and splits that its accuracy is measured on."""

FORMATS = "give CSV, TSV or JSON lines with the columns 'text' and 'label', or LABEL=FILE with a text a line"
"""What a file of labelled texts may be, for messages."""


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with a label each, as files have them.

    Attributes:
        texts: (n,).
        labels: (n,).
        held_out: (n,); whether the file says that a text is for measuring, or for training; None where it
            says neither.
        sources: where they are from.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    held_out: tuple[bool | None, ...]
    sources: tuple[str, ...] = ()


_Row = tuple[str, str, bool | None]


def read_labelled_texts(sources: Sequence[str]) -> LabelledTexts:
    """Texts with labels from one file or several.

    A file is CSV, TSV, JSON or JSON lines with a column of texts (``text``, ``caption``, ...), one of labels
    (``label``) and, where it has one, a column ``split``: texts of ``train`` are trained on, those of ``val``
    and ``test`` never. ``LABEL=FILE`` gives all texts of a file one label; the file is a table without labels
    or has a text on each line. Blank lines are passed over.

    Args:
        sources: paths or addresses, each with or without a label before it.

    Raises:
        ConfigError: if a file cannot be read, has no column of texts or labels, has a row without a text or
            label, or a split of an unknown name.
    """
    rows = [row for source in sources for row in _read(source)]
    if not rows:
        raise ConfigError(f"{', '.join(sources) or 'labelled texts'}: no texts; {FORMATS}")
    texts, labels, held_out = zip(*rows, strict=True)
    return LabelledTexts(texts, labels, held_out, tuple(sources))


def _read(source: str) -> Iterator[_Row]:
    label, path = label_and_path(source)
    text = decode(read_data(path), path, FORMATS)
    suffix = Path(path).suffix.lower()
    begins_as_json = text.lstrip()[:1] in ("{", "[")
    is_json = suffix in (".json", ".jsonl", ".ndjson") or (label is None and begins_as_json)
    if label is not None and not is_json and suffix not in (".csv", ".tsv"):
        yield from ((line.strip(), label, None) for _, line in numbered_lines(text))
        return
    if not text.strip():
        raise ConfigError(f"{path}: is empty; {FORMATS}")
    rejected = Rejected(keep=False)
    for place, fields in _records(path, text, is_json):
        _, captions, read = captions_in(fields, place, rejected)
        if not captions and not read:
            raise ConfigError(f"{place}: no column of texts (found {', '.join(fields)}); call it 'text'")
        found, held_out = _label(fields, place, label), _side(fields, place)
        for caption in captions:
            if not caption.strip():
                raise ConfigError(f"{place}: the text is empty; write one, or remove the row")
            yield caption.strip(), found, held_out


def label_and_path(source: str) -> tuple[str | None, str]:
    """The label before a file, None if there is none, and the file; a path may have an equals sign too.

    Raises:
        ConfigError: if the label is empty.
    """
    label, equals, path = source.partition("=")
    if not equals or is_address(source) or Path(source).is_file():
        return None, source
    if not label.strip() or not path:
        raise ConfigError(f"{source}: a label or a file is missing; write LABEL=FILE")
    return label.strip(), path


def _records(path: str, text: str, is_json: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    if is_json:
        yield from records_of(Path(path), text, document_of(Path(path), text, FORMATS))
        return
    delimiter = "\t" if path.lower().endswith(".tsv") else None
    try:
        for place, fields in csv_records(text, delimiter, CAPTION_COLUMNS):
            yield f"{path}: {place}", dict(fields)
    except NoImageColumnError:
        header = first_line(text.lstrip()).strip()
        raise ConfigError(f"{path}: line 1: no column of texts in {header!r:.60}; {FORMATS}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _label(fields: dict[str, Any], place: str, given: str | None) -> str:
    column = next((name for name in LABEL_COLUMNS if name in fields), None)
    if given is not None:
        if column is not None:
            raise ConfigError(
                f"{place}: has a column {column!r}, so it takes no label of its own; give the file without "
                f"'{given}='"
            )
        return given
    if column is None:
        raise ConfigError(
            f"{place}: no column of labels (found {', '.join(fields)}); call it 'label', or give the file "
            "one label: LABEL=FILE"
        )
    label = as_text(fields[column], f"{place}, {column}")
    if not label:
        raise ConfigError(f"{place}: the label is empty; write one, or remove the row")
    return label


def _side(fields: dict[str, Any], place: str) -> bool | None:
    """Whether a row is held out, by its split; None where it has none."""
    column = next((name for name in SPLIT_COLUMNS if name in fields), None)
    split = as_text(fields[column], f"{place}, {column}").lower() if column is not None else ""
    if not split:
        return None
    if split not in (*TRAINING, *HELD_OUT):
        raise ConfigError(f"{place}: the split {split!r} is not known; write train, val or test")
    return split in HELD_OUT

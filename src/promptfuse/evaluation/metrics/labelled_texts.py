"""Texts with labels, from files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from promptfuse._utils.addresses import is_address
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.columns import CAPTION_COLUMNS, Rejected, captions_in
from promptfuse.evaluation.datasets.documents import JSON_SUFFIXES, Record, read_records
from promptfuse.evaluation.datasets.rows import LABEL_COLUMNS, LabelRow, parse
from promptfuse.evaluation.datasets.texts import decode, naming, numbered_lines, read_data

TRAINING = ("train", "training", "restval")
HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing")
"""Splits that a judge trains on, and splits that its accuracy is measured on."""

FORMATS = (
    "give CSV, TSV or JSON lines with the columns 'text' and 'label', or LABEL=FILE with a text on each line"
)
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
    if label is not None and Path(path).suffix.lower() not in (*JSON_SUFFIXES, ".csv", ".tsv"):
        yield from ((line.strip(), label, None) for _, line in numbered_lines(text))
        return
    with naming(path):
        if not text.strip():
            raise ConfigError(f"is empty; {FORMATS}")
        _, records = read_records(text, path, FORMATS, CAPTION_COLUMNS, "of texts")
        rejected = Rejected()
        for record in records:
            yield from _rows(record, label, rejected)


def _rows(record: Record, label: str | None, rejected: Rejected) -> Iterator[_Row]:
    """The texts of a record."""
    place, fields = record
    found = captions_in(fields, place)
    if not found.entries and not found.read:
        raise ConfigError(f"{place}: no column of texts (found {', '.join(fields)}); call it 'text'")
    row = parse(LabelRow.model_validate, fields, place)
    column = next((name for name in LABEL_COLUMNS if name in fields), None)
    if label is not None and column is not None:
        raise ConfigError(
            f"{place}: has a column {column!r}, so the file cannot be given a label; give it without "
            f"'{label}='"
        )
    if label is None and column is None:
        raise ConfigError(
            f"{place}: no column of labels (found {', '.join(fields)}); call it 'label', or give the file "
            "one label: LABEL=FILE"
        )
    own = row.label if label is None else label
    if not own:
        raise ConfigError(f"{place}: the label is empty; write one, or remove the row")
    split = row.split.lower()
    if split not in ("", *TRAINING, *HELD_OUT):
        raise ConfigError(f"{place}: the split {split!r} is not known; write train, val or test")
    for text in rejected.texts(found.entries):
        if not text.strip():
            raise ConfigError(f"{place}: the text is empty; write one, or remove the row")
        yield text.strip(), own, split in HELD_OUT if split else None


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

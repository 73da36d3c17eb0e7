"""Folders of photos with their captions in a table, as Hugging Face's ``imagefolder`` has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import PurePosixPath

from promptfuse.evaluation.datasets.columns import NoImageColumnError
from promptfuse.evaluation.datasets.documents import Record
from promptfuse.evaluation.datasets.records import Contents, Row
from promptfuse.evaluation.datasets.rows import IMAGE_COLUMNS
from promptfuse.evaluation.datasets.table import read_table
from promptfuse.evaluation.datasets.texts import naming

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""Names of such a table; ``file_name`` in it is relative to its own folder."""

SPLITS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"))
"""Names of folders that are splits, where a table of their photos is in them or above."""

_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
_SIDECARS = (".txt", ".caption", ".json")
"""Endings of files with the caption of the photo of the same name."""


def read_metadata(
    photos: Contents,
    files: Sequence[str],
    records: Callable[[str], Iterator[Record]],
    keep_rejected: bool,
) -> Contents:
    """The photos of a folder with the captions, ids and splits of the tables in it.

    Photos that no table names stay, without captions. Files that may have captions and are not read are among
    the problems.

    Args:
        photos: of the folder, sorted by their paths.
        files: all of the folder, relative to it.
        records: reads a table of the folder.
        keep_rejected: whether captions count that a table marks as rejected.

    Raises:
        ConfigError: if a table cannot be read.
    """
    found: list[Row] = []
    problems: list[str] = []
    read = [file for file in files if PurePosixPath(file).name.lower() in METADATA]
    for file in read:
        folder = PurePosixPath(file).parent
        with naming(file):
            contents = _table(records(file), keep_rejected)
        if contents is None:
            problems.append(f"{file} is not read: no column names the photos (file_name)")
            continue
        problems += [f"{file}: {problem}" for problem in contents.problems]
        for row in contents.rows:
            names = tuple(name if "://" in name else str(folder / name) for name in row.names)
            id_ = names[0] if row.id == row.names[0] else row.id
            found.append(Row(f"{file}, {row.place}", id_, names, row.captions, row.split or _split(names[0])))
    named = {name for row in found for name in row.names}
    rest = [row for row in photos.rows if row.names[0] not in named]
    if found:
        for row in rest:
            row.split = _split(row.names[0])
        if rest:
            count = f"{len(rest):,} photo{'s are' if len(rest) > 1 else ' is'}"
            problems.append(f"{count} not in {', '.join(read[:3])}, e.g. {rest[0].names[0]}: no captions")
    return Contents(
        sorted([*found, *rest], key=lambda row: row.names[0]),
        [*photos.problems, *problems, *_not_read(photos, files, read)],
    )


def _table(records: Iterator[Record], keep_rejected: bool) -> Contents | None:
    """The photos of a table; None if it names none."""
    try:
        first = next(records, None)
    except NoImageColumnError:
        return None
    if first is None:
        return Contents()
    if first[1].keys().isdisjoint(IMAGE_COLUMNS):
        return None
    return read_table(chain([first], records), keep_rejected)


def _split(path: str) -> str:
    """The split that a folder of a path is named after; empty if none is."""
    return next((part for part in PurePosixPath(path).parts[:-1] if part.lower() in SPLITS), "")


def _not_read(photos: Contents, files: Sequence[str], read: Sequence[str]) -> list[str]:
    """Lines about other files that may have captions."""
    tables = [file for file in files if PurePosixPath(file).suffix.lower() in _TABLES and file not in read]
    stems = {str(PurePosixPath(row.names[0]).with_suffix("")) for row in photos.rows}
    beside = [file for file in files if PurePosixPath(file).suffix.lower() in _SIDECARS]
    beside = [file for file in beside if str(PurePosixPath(file).with_suffix("")) in stems]
    # What is beside each photo, as img2dataset writes it, is no table of several.
    tables = [file for file in tables if str(PurePosixPath(file).with_suffix("")) not in stems]
    problems = []
    if tables:
        more = f" and {len(tables) - 1:,} more tables are" if len(tables) > 1 else " is"
        problems.append(f"{tables[0]}{more} not read; name the file itself to read its captions")
    if beside:
        # img2dataset writes each caption into a .txt and, with more, into a .json.
        beside = [file for file in beside if not file.lower().endswith(".json")] or beside
        texts = f"{len(beside):,} text{'s' * (len(beside) > 1)} beside the photos, e.g. {beside[0]},"
        problems.append(
            f"{texts} {'are' if len(beside) > 1 else 'is'} not read; write captions into metadata.jsonl"
        )
    return problems

"""Names of columns, the captions in them, and what looks like captions in columns that are not read."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.rows import (
    FLAGS,
    ID_COLUMNS,
    IMAGE_COLUMNS,
    SPLIT_COLUMNS,
    TEXT_COLUMNS,
    Entry,
    Marks,
    at,
    is_set,
    parse,
    parse_caption,
    shown,
)

LIST_COLUMNS = ("captions", "references", "sentences", "texts", "descriptions", "comments", "reference_strs")
CAPTION_COLUMNS = (*LIST_COLUMNS[:-1], *TEXT_COLUMNS, LIST_COLUMNS[-1])
"""Columns of captions, of which a row's first with a value is read. TextCaps has each caption in a row of its
own (``caption_str``) and all of the photo in each (``reference_strs``)."""

_CAPTIONS_ONLY = frozenset(("captions", "references", "caption", "reference", "comment", "raw"))
"""Columns in which anything but captions is an error."""

_NUMBERED = re.compile(rf"({'|'.join(TEXT_COLUMNS)})[ _-]?\d+")
"""One of several columns with a caption each: ``caption_1``."""

_PATH = re.compile(
    r"^\S+://|^[\w./\\ -]*[/\\][^\s/\\]+\.\w{2,5}$|\.(jpe?g|png|webp|gif|bmp|tiff?)$", re.IGNORECASE
)

_READ_LENGTH = 2_000
"""Characters of a value that are looked at."""


class Found(NamedTuple):
    """The captions of a row.

    Attributes:
        entries: each with its marks; one that is empty where a column for one caption has none.
        read: the columns that they come from.
        single: whether other rows may have more captions of the photo.
    """

    entries: list[Entry]
    read: tuple[str, ...] = ()
    single: bool = False


def captions_in(fields: Mapping[str, Any], place: str) -> Found:
    """The captions of a row.

    Args:
        fields: of the row, names in lower case.
        place: of the row, for messages.

    Raises:
        ConfigError: if a value is not a caption, or there are more or fewer marks than captions.
    """
    columns, numbered = _columns_in(tuple(fields))
    if numbered:
        rest = {name: value for name, value in fields.items() if name not in numbered}
        first = captions_in(rest, place)
        more = [Entry.model_validate(parse_caption(fields[name], at(place, name))) for name in numbered]
        return Found([*first.entries, *more], (*first.read, *numbered))
    column = next((name for name in columns if _may_be_read(name, fields[name])), None)
    if column is None:
        empty = any(name in TEXT_COLUMNS and fields[name] in (None, "", []) for name in columns)
        return Found([Entry.model_validate("")] * empty, (), empty)
    value, where = fields[column], at(place, column)
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _list_in_a_cell(value, where, must=column in LIST_COLUMNS)
    elif isinstance(value, dict):
        value = _in_columns(value)
    if isinstance(value, list):
        found = Found(parse_entries(value, where), (column,))
    else:
        found = Found([Entry.model_validate(parse_caption(value, where))], (column,), True)
    for name in fields.keys() & set(FLAGS):
        _mark(found.entries, name, fields[name], at(place, name))
    return found


def parse_entries(values: list[Any], place: str) -> list[Entry]:
    """The captions of a list: texts, or fields of which one is the text."""
    return [parse(Entry.model_validate, value, f"{place}[{index}]") for index, value in enumerate(values)]


def _mark(entries: list[Entry], name: str, value: Any, place: str) -> None:
    """Give captions the marks that stand beside them in their row: one for all, or one for each."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value.lower())
        except (ValueError, RecursionError):
            raise ConfigError(f"{place}: {value!r:.60} is not a list in JSON; correct it") from None
    marks = value if isinstance(value, list) else [value] * len(entries)
    if len(marks) != len(entries):
        raise ConfigError(f"{place}: {len(marks)} marks for {len(entries)} captions; give one a caption")
    for entry, mark in zip(entries, marks, strict=True):
        setattr(entry, name, getattr(entry, name) or is_set(mark))


def _may_be_read(name: str, value: Any) -> bool:
    """Whether a column is to be read; ``text`` and the like may hold something else, such as a flag."""
    if value in (None, "", []):
        return False
    return name in _CAPTIONS_ONLY or isinstance(value, str | list)


@lru_cache(maxsize=256)
def _columns_in(names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which of a row's columns have captions, the first of them to be read, and which are numbered."""
    columns = tuple(name for name in CAPTION_COLUMNS if name in names)
    return columns, tuple(name for name in names if _NUMBERED.fullmatch(name))


def _list_in_a_cell(text: str, where: str, must: bool) -> list[Any] | str:
    """A cell of a CSV file that looks like a list; the text itself if it need not be one and is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        if must:
            raise ConfigError(f"{where}: {shown(text)} is not a list in JSON; correct it") from None
        return text
    return found if must or all(isinstance(one, str) for one in found) else text


def _in_columns(value: dict[str, Any]) -> Any:
    """Fields that are lists of one length as a list of fields, as Hugging Face's sequences are the former."""
    columns = list(value.values())
    if not columns or not all(isinstance(one, list) and len(one) == len(columns[0]) for one in columns):
        return value
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


class Rejected:
    """Leaves captions out that their data set marks as rejected, and counts them.

    Args:
        keep: whether they are kept all the same.
    """

    def __init__(self, keep: bool = False) -> None:
        self.keep = keep
        self.counts = dict.fromkeys(FLAGS, 0)
        self.total = 0

    def drops(self, caption: Marks) -> bool:
        """Whether a caption is left out."""
        if not (caption.is_rejected or caption.is_precanned):
            return False
        for name in FLAGS:
            self.counts[name] += getattr(caption, name)
        self.total += 1
        return not self.keep

    def texts(self, entries: list[Entry]) -> list[str]:
        """The captions that stay."""
        return [entry.text for entry in entries if not self.drops(entry)]

    def problems(self) -> list[str]:
        """A line that says how many there are; none if there are none."""
        if not self.total:
            return []
        marks = ", ".join(f"{name} {count:,}" for name, count in self.counts.items() if count)
        said = f"{self.total:,} caption{'s are' if self.total > 1 else ' is'} marked as rejected ({marks})"
        return [f"{said} and kept" if self.keep else f"{said} and left out; --keep-rejected keeps them"]


class NoImageColumnError(ConfigError):
    """A table without a column that names the photos."""


class Unread:
    """Columns that look like text and are not read, so that no caption is lost in silence.

    Args:
        what: what columns are called in the source.
        words: whether columns of single words count too, where no captions are read at all.
    """

    def __init__(self, what: str = "column", words: bool = True) -> None:
        self.what, self.words = what, words
        self._texts: dict[str, None] = {}
        self._words: dict[str, None] = {}
        self._read: dict[str, None] = {}
        self._skipped: dict[tuple[str, ...], frozenset[str]] = {}

    def look(self, fields: Mapping[str, Any], read: tuple[str, ...], known: tuple[str, ...] = ()) -> None:
        """Look at a row.

        Args:
            fields: of the row.
            read: the columns whose captions are taken.
            known: further columns that have no captions, the same for all rows.
        """
        skipped = self._skipped.get(read)
        if skipped is None:
            also = ("reference_strs",) if "caption_str" in read else ()
            self._skipped[read] = skipped = frozenset((*_NO_CAPTIONS, *read, *known, *also))
            self._read.update(dict.fromkeys(read))
        if fields.keys() <= skipped:
            return
        for name, value in fields.items():
            if name in skipped or name in self._texts:
                continue
            if _has(value, is_text):
                self._texts[name] = None
            elif self.words and not self._read and _has(value, _is_word):
                self._words[name] = None

    def problems(self) -> list[str]:
        """A line that names the columns; none if there are none."""
        names = list(self._texts) if self._read else list({**self._texts, **self._words})
        if not names:
            return []
        listed = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
        read = f" (captions are read from {', '.join(map(repr, self._read))})" if self._read else ""
        if len(names) > 1:
            remedy = "call the one with captions 'caption'"
            return [f"the {self.what}s {listed} look like text and are not read{read}; {remedy}"]
        remedy = "call it 'caption' if it has captions"
        return [f"the {self.what} {listed} looks like text and is not read{read}; {remedy}"]


_NO_CAPTIONS = frozenset((*IMAGE_COLUMNS, *ID_COLUMNS, *SPLIT_COLUMNS))


def is_text(value: str) -> bool:
    """Whether a value looks like a text that somebody wrote: words in a row, and no path, address or date."""
    if value.isascii() and len(value.split(maxsplit=1)) < 2:
        return False  # Most values of most columns.
    value = value[:_READ_LENGTH].strip()
    words = value.split()
    if not words or _PATH.search(value):
        return False
    written = sum(2 * sum(map(str.isalpha, word)) > len(word) for word in words)
    if len(words) > 1:
        return written > 1 and written * 2 > len(words)
    # Chinese, Japanese and Thai are written without blanks.
    return sum(unicodedata.category(letter) == "Lo" for letter in value) > 3


def _is_word(value: str) -> bool:
    value = value[:_READ_LENGTH].strip()
    return not _PATH.search(value) and re.sub(r"[\s'_.,!?-]+", "", value).isalpha()


def _has(value: Any, check: Callable[[str], bool]) -> bool:
    """Whether a value, or one in it, passes a check."""
    if isinstance(value, str):
        return check(value)
    if isinstance(value, dict):
        return any(_has(one, check) for one in list(value.values())[:16])
    return isinstance(value, list) and any(_has(one, check) for one in value[:16])

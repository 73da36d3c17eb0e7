"""Names of columns, the captions in them, and what looks like captions in columns that are not read."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.fields import as_caption, as_list, shown
from promptfuse.evaluation.datasets.rejected import Rejected

IMAGE_COLUMNS = (
    *("image", "file", "filename", "file_name", "path", "image_name", "image_path", "image_file"),
    *("image_file_name", "image_filename", "img", "img_path", "filepath", "file_path", "url", "image_url"),
)
"""Columns that name the photo, the first that has a value; addresses come last."""

ID_COLUMNS = ("image_id", "id")
"""Where a table has both, ``id`` is that of the caption, as in COCO's annotations."""

LIST_COLUMNS = ("captions", "references", "sentences", "texts", "descriptions", "comments", "reference_strs")
TEXT_COLUMNS = (
    *("caption", "reference", "comment", "raw", "text", "sentence", "description", "caption_str"),
    *("image_caption", "alt_text"),
)
CAPTION_COLUMNS = (*LIST_COLUMNS[:-1], *TEXT_COLUMNS, LIST_COLUMNS[-1])
"""Columns of captions, of which a row's first with a value is read. TextCaps has each caption in a row of its
own (``caption_str``) and all of the photo in each (``reference_strs``)."""

_CAPTIONS_ONLY = frozenset(("captions", "references", "caption", "reference", "comment", "raw"))
"""Columns in which anything but captions is an error."""

SPLIT_COLUMNS = ("split", "set_name")

_NUMBERED = re.compile(rf"({'|'.join(TEXT_COLUMNS)})[ _-]?\d+")
"""One of several columns with a caption each: ``caption_1``."""

_PATH = re.compile(
    r"^\S+://|^[\w./\\ -]*[/\\][^\s/\\]+\.\w{2,5}$|\.(jpe?g|png|webp|gif|bmp|tiff?)$", re.IGNORECASE
)

_READ_LENGTH = 2_000
"""Characters of a value that are looked at."""


def captions_in(
    fields: Mapping[str, Any], place: str, rejected: Rejected
) -> tuple[bool, list[str], tuple[str, ...]]:
    """The captions of a row.

    Args:
        fields: of the row, names in lower case.
        place: of the row, for messages.
        rejected: says which captions of a list are left out.

    Returns:
        Whether the row has one caption of perhaps several rows; the captions, one that is empty where a
        column for one has none; and the columns that were read.

    Raises:
        ConfigError: if a value is no caption.
    """
    columns, numbered = _columns_in(tuple(fields))
    if numbered:
        rest = {name: value for name, value in fields.items() if name not in numbered}
        _, first, read = captions_in(rest, place, rejected)
        more = [as_caption(fields[name], f"{place}, {name}") for name in numbered]
        return False, [*first, *more], (*read, *numbered)
    column = next((name for name in columns if _may_be_read(name, fields[name])), None)
    if column is None:
        empty = any(name in TEXT_COLUMNS and fields[name] in (None, "", []) for name in columns)
        return empty, [""] * empty, ()
    value, where = fields[column], f"{place}, {column}"
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _list_in_a_cell(value, where, must=column in LIST_COLUMNS)
    elif isinstance(value, dict):
        value = _in_columns(value)
    if isinstance(value, list):
        return False, several_captions(rejected.without(value, fields, place), where, rejected), (column,)
    return True, [as_caption(value, where)], (column,)


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


def several_captions(values: Any, place: str, rejected: Rejected) -> list[str]:
    """The captions of a list: texts, or fields of which one is the text, as Karpathy's ``sentences`` have it.

    Args:
        values: the list.
        place: of it, for messages.
        rejected: says which of the fields are left out.

    Raises:
        ConfigError: if it is no list, or something in it is no caption.
    """
    return [
        _caption(value, f"{place}[{index}]") if isinstance(value, dict) else as_caption(value, place)
        for index, value in enumerate(as_list(values, place))
        if not (isinstance(value, dict) and rejected.drops(value))
    ]


def _caption(value: dict[str, Any], place: str) -> str:
    column = next((name for name in ("raw", *TEXT_COLUMNS) if value.get(name) is not None), None)
    if column is not None:
        return as_caption(value[column], f"{place}.{column}")
    if "tokens" in value:
        words = as_list(value["tokens"], f"{place}.tokens")
        return " ".join(as_caption(word, f"{place}.tokens") for word in words)
    if value and value.keys().isdisjoint(TEXT_COLUMNS):
        raise ConfigError(f"{place}: no caption in {shown(value)}; call it 'raw' or 'caption'")
    return ""


def _list_in_a_cell(text: str, where: str, must: bool) -> list[Any] | str:
    """A cell of a CSV file that looks like a list; the text itself if it need not be one and is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        if must:
            raise ConfigError(f"{where}: {shown(text)} is no list in JSON; correct it") from None
        return text
    return found if must or all(isinstance(one, str) for one in found) else text


def _in_columns(value: dict[str, Any]) -> Any:
    """Fields that are lists of one length as a list of fields, as Hugging Face's sequences are the former."""
    columns = list(value.values())
    if not columns or not all(isinstance(one, list) and len(one) == len(columns[0]) for one in columns):
        return value
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


class NoImageColumnError(ConfigError):
    """A table without a column that names the photos."""


class Unread:
    """Columns that look like text and are not read, so that no caption is lost in silence.

    Args:
        what: what columns are called in the source.
        words: whether columns of single words count, too, where no captions are read at all.
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
        rest = fields.keys() - skipped - self._texts.keys()
        for name, value in fields.items():
            if name not in rest:
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
        listed = ", ".join(repr(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
        more = f"captions are read from {', '.join(repr(name) for name in self._read)}" if self._read else ""
        if len(names) == 1:
            what, remedy = (
                f"the {self.what} {listed} looks like text and is",
                "call it 'caption' if it has captions",
            )
        else:
            what = f"the {self.what}s {listed} look like text and are"
            remedy = "call the one with captions 'caption'"
        return [f"{what} not read ({more}); {remedy}" if more else f"{what} not read; {remedy}"]


_NO_CAPTIONS = frozenset((*IMAGE_COLUMNS, *ID_COLUMNS, *SPLIT_COLUMNS))


def is_text(value: str) -> bool:
    """Whether a value looks like a text that somebody wrote: words in a row, and no path, address or date."""
    if value.isascii() and len(value.split(maxsplit=1)) < 2:
        return False  # Most values of most columns.
    value = value[:_READ_LENGTH].strip()
    words = value.split()
    if not words or _is_path(value):
        return False
    written = sum(_letters(word) * 2 > len(word) for word in words)
    if len(words) > 1:
        return written > 1 and written * 2 > len(words)
    # Chinese, Japanese and Thai are written without blanks.
    return sum(unicodedata.category(letter) == "Lo" for letter in value) > 3


def _is_word(value: str) -> bool:
    value = value[:_READ_LENGTH].strip()
    return not _is_path(value) and re.sub(r"[\s'_.,!?-]+", "", value).isalpha()


def _is_path(value: str) -> bool:
    return _PATH.search(value) is not None


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def _has(value: Any, check: Callable[[str], bool]) -> bool:
    """Whether a value, or one in it, passes a check."""
    if isinstance(value, str):
        return check(value)
    if isinstance(value, dict):
        return any(_has(one, check) for one in list(value.values())[:16])
    return isinstance(value, list) and any(_has(one, check) for one in value[:16])

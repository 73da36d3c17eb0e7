"""Taking values out of parsed JSON, with one line that says what is wrong with them."""

from __future__ import annotations

import json
from typing import Any

from promptfuse.errors import ConfigError


def as_text(value: Any, place: str) -> str:
    """A name, id or split: texts are stripped, whole numbers written out, nothing is empty.

    Raises:
        ConfigError: if it is of another type, or cannot be written as UTF-8.
    """
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # Spreadsheets and data frames write ids so.
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ConfigError(f"{place}: expected a text or a whole number, found {shown(value)}")
    return unicode(str(value).strip(), place)


def as_caption(value: Any, place: str) -> str:
    """A caption as it stands; nothing is empty, as pandas writes it too: NaN.

    Raises:
        ConfigError: if it is no text.
    """
    if value is None or value != value:
        return ""
    if not isinstance(value, str):
        raise ConfigError(f"{place}: expected a caption in quotes, found {shown(value)}")
    return unicode(value, place)


def as_fields(value: Any, place: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ConfigError: if it is none.
    """
    if not isinstance(value, dict):
        raise ConfigError(f'{place}: expected fields, {{"name": value}}, found {shown(value)}')
    return value


def as_list(value: Any, place: str) -> list[Any]:
    """A JSON list.

    Raises:
        ConfigError: if it is none.
    """
    if not isinstance(value, list):
        raise ConfigError(f"{place}: expected a list, found {shown(value)}")
    return value


def unicode(text: str, place: str) -> str:
    """The same text, if it can be written as UTF-8.

    Raises:
        ConfigError: if it has half of a pair of surrogates.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{place}: {text!r:.60} is no valid Unicode; correct it") from None
    return text


def shown(value: Any) -> str:
    """A value as JSON, short enough for a message."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."

"""The text of a file, wherever it is and however a spreadsheet saved it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from promptfuse._utils.addresses import is_address, read_bytes
from promptfuse._utils.git_lfs import POINTER_REMEDY, is_pointer
from promptfuse.errors import ConfigError

MAX_BYTES = 8 << 30
"""The largest file that is read from an address."""


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Put a file before the messages of `ConfigError` that do not begin with it."""
    try:
        yield
    except ConfigError as error:
        raise error if str(error).startswith(f"{source}:") else type(error)(f"{source}: {error}") from None


def read_data(source: str) -> bytes:
    """The bytes of a local file, a pipe, or a file at an address.

    Raises:
        ConfigError: if it cannot be read.
    """
    if is_address(source):
        return read_bytes(source, MAX_BYTES, ConfigError)
    if is_pointer(Path(source)):
        raise ConfigError(f"{source}: {POINTER_REMEDY}")
    try:
        return Path(source).read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{source}: no such file or folder; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{source}: cannot be read ({reason}); check the path and its permissions"
        ) from None


def is_wide(data: bytes) -> bool:
    """Whether bytes are a text in UTF-16, by their mark."""
    return data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def decode(data: bytes, source: str, instead: str) -> str:
    """The text of a file's bytes, UTF-8 or what spreadsheets call Unicode: UTF-16 with its mark.

    Args:
        data: the bytes.
        source: the file, for messages.
        instead: what to give instead, likewise.

    Raises:
        ConfigError: if they are not text.
    """
    wide = is_wide(data)
    if b"\0" in data and not wide:
        raise ConfigError(f"{source}: contains binary data; {instead}")
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{source}: line {line}: not UTF-8 text; save it as UTF-8 ({instead})") from None


_END = re.compile(r"\r\n?|\n")


def first_line(text: str) -> str:
    """A text up to the first end of a line."""
    return text[: end.start()] if (end := _END.search(text)) else text


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a text with their numbers, whichever of the three ends they have; blank ones are left out.

    ``str.splitlines`` ends lines at other characters too, which JSON allows within a text.
    """
    start = number = 0
    while start <= len(text):
        number += 1
        end = _END.search(text, start)
        line = text[start : end.start() if end else len(text)]
        if line.strip():
            yield number, line
        if end is None:
            return
        start = end.end()

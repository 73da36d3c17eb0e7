"""What a language model reads before every text, as options and files give it."""

from __future__ import annotations

from pathlib import Path

from promptfuse._utils.paths import expand_user
from promptfuse.errors import ConfigError

MOST_BYTES = 1 << 20
"""A larger file is surely a mistake: no model has room for it."""


def read_context(value: str, folder: Path | None = None) -> str:
    """A context that is given as text, or as ``@FILE`` with the text in it.

    In a file, lines are examples: the last one ends with a line break too, whether or not the file does, so
    that the text goes on in a line of its own. ``@@`` stands for an ``@`` that is no file.

    Args:
        value: the text, or ``@FILE``.
        folder: what the file's path is relative to; None for the current folder.

    Raises:
        ConfigError: if the file cannot be read, or has no text.
    """
    if not value.startswith("@"):
        return value
    if value.startswith("@@"):
        return value[1:]
    path = Path(folder or "", expand_user(value[1:]))
    if value == "@" or path.is_dir():
        raise ConfigError(f"lm_prefix {value!r}: names no file; give a text, or @FILE with the text in it")
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; give a text, or @FILE with the text") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    if len(raw) > MOST_BYTES:
        raise ConfigError(f"{path}: has more than {MOST_BYTES:,} bytes; give a few examples")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip()
    if not lines.strip():
        raise ConfigError(f"{path}: has no text; write an example on each line")
    return f"{lines}\n"

"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from promptfuse.errors import ConfigError


def write_whole(path: Path, text: str) -> None:
    """Write UTF-8 text to a temporary name beside the file, then rename it.

    Raises:
        OSError: if it cannot be written; then the file is as it was.
    """
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=path.name, suffix=".part", delete=False
    ) as stream:
        part = Path(stream.name)
        try:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
            part.chmod(0o644)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """Raise ``ConfigError`` where no file can be written, before any work is done for it."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is no plain file; give the name of a file")
    if not path.resolve().parent.is_dir():
        raise ConfigError(f"{path}: its folder does not exist; create it first")

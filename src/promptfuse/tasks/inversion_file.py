"""A file of inversions, one on each line, which a later run goes on with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from promptfuse._utils.resume import differences
from promptfuse.errors import ConfigError
from promptfuse.tasks.inversion import Inversion
from promptfuse.tasks.inversion_inputs import Target

_BEGINNING = b'{"id": "'
"""How every line begins, cut off or not."""


class InversionFile:
    """Inversions on disk, for one process at a time.

    A line is added by one write, so a process that is killed leaves at most a last line that is cut off. It
    is removed when the file is opened again, and its input is done again.

    Args:
        path: the file; made if it is not there.
        settings: what decides the results, in plain values; lines must have been made with the same.

    Attributes:
        done: the inversions in the file by the names of their inputs.

    Raises:
        ConfigError: when it is entered: if the file cannot be written to, another process writes to it, or it
            was not written by promptfuse, or with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = path, dict(settings)
        self.done: dict[str, Inversion] = {}
        self._stream: FileIO
        self._lock = FileLock(f"{path}.lock", timeout=0)

    def __enter__(self) -> InversionFile:
        if self.path.suffix.lower() != ".jsonl":
            raise ConfigError(f"{self.path}: the name must end in .jsonl")
        if self.path.exists() and not self.path.is_file():
            raise ConfigError(f"{self.path}: is not a regular file; give the name of a file")
        if not self.path.resolve().parent.is_dir():
            raise ConfigError(f"{self.path}: its folder does not exist; create it first")
        try:
            self._lock.acquire()
        except Timeout:
            raise ConfigError(
                f"{self.path}: in use by another process; wait until it ends, or give another file"
            ) from None
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def holds(self, target: Target) -> bool:
        """Whether an input is done already.

        Raises:
            ConfigError: if the file has another input of this name.
        """
        found = self.done.get(target.id)
        if found is not None and found.digest != target.digest:
            raise ConfigError(
                f"{self.path}: has another input named {target.id!r}; give another file, or the input of then"
            )
        return found is not None

    def append(self, inversion: Inversion) -> None:
        """Add a line.

        Raises:
            OSError: if it cannot be written, as on a full disk; then the file is as it was.
        """
        row = {**inversion.to_dict(), "settings": self.settings}
        line = memoryview((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))
        size, written = self._stream.seek(0, os.SEEK_END), 0
        try:
            while written < len(line):
                written += self._stream.write(line[written:])
        except OSError:
            self._stream.truncate(size)
            raise
        self.done[inversion.id] = inversion

    def _open(self) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            self._read(number, line)
        rest = data[whole:]
        if complete := rest.strip() and (_is_json(rest) or not rest.startswith(_BEGINNING)):
            self._read(data.count(b"\n") + 1, rest)
        self._stream = self.path.open("a+b", buffering=0)
        if complete:  # Somebody's editor writes no last line feed.
            self._stream.write(b"\n")
        else:
            self._stream.truncate(whole)

    def _read(self, number: int, line: bytes) -> None:
        try:
            values = json.loads(line)
            found, settings = Inversion.from_dict(values), values["settings"]
        except (ValueError, KeyError, TypeError):
            raise ConfigError(
                f"{self.path}: line {number} is not an inversion; give another file, or remove the line"
            ) from None
        for one in differences(settings, self.settings):
            raise ConfigError(
                f"{self.path}: was made with {one.name} {one.before!r}, not {one.now!r}; give another file, "
                "or the settings of then"
            )
        self.done[found.id] = found

    def _close(self) -> None:
        if hasattr(self, "_stream"):
            self._stream.close()
        self._lock.release()
        with suppress(OSError):
            Path(self._lock.lock_file).unlink()


def _is_json(line: bytes) -> bool:
    """Whether a line that lacks its line feed lacks nothing else."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True

"""The lines of a run on disk: one writer, no line lost or written twice, whatever ends the process."""

from __future__ import annotations

import mmap
import os
import re
import socket
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from promptfuse._utils.atomic_files import atomic_write
from promptfuse.errors import ConfigError
from promptfuse.evaluation.predictions import Prediction, is_whole, iterate_predictions

_OWNER = re.compile(r"process \d+ on [^\n]*\n?")
"""What a run writes into its lock."""


class Journal:
    """The file ``predictions.jsonl`` of a run folder, for one process at a time.

    A line is appended by one write, so a process that is killed leaves at most a last line that is cut
    off. It is removed when the journal is opened again, and its photo counts as not done.

    Args:
        folder: the run folder; made if it is not there.

    Attributes:
        done: the ids with a line; for each whether its photo failed.
        failed: how many photos failed.
        reason: why the first of them did; empty if none did.

    Raises:
        ConfigError: when it is entered: if the folder cannot be written to, another process has it, or a
            line is damaged or there twice.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "predictions.jsonl"
        self.done: dict[str, bool] = {}
        self.reason = ""
        self.failed = 0  # Counted along: of a million lines, each would go through all the others.
        self._size = 0
        self._lines: FileIO
        self._lock: FileLock

    def __enter__(self) -> Journal:
        self._lock = lock_folder(self.folder)
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        """Read what is there, cut off a torn line, and open the file to append."""
        if self.path.exists():
            for number, prediction in enumerate(iterate_predictions(self.path), 1):
                if prediction.id in self.done:
                    raise ConfigError(
                        f"{self.path}: line {number} is the second of photo {prediction.id!r}; remove one"
                    )
                self._count(prediction)
        self._lines = self.path.open("a+b", buffering=0)
        self._size = _whole_lines(self._lines)
        self._lines.seek(self._size)
        rest = self._lines.read()
        if is_whole(rest):  # Somebody's editor writes no last line feed.
            self._lines.write(b"\n")
            self._size += len(rest) + 1
        else:
            self._lines.truncate(self._size)

    def append(self, prediction: Prediction) -> None:
        """Add a line; one of a photo that has its line already is left out.

        Raises:
            OSError: if it cannot be written, as on a full disk; then the file is as it was.
        """
        if prediction.id in self.done:
            return
        line = memoryview(prediction.to_line().encode("utf-8"))
        written = 0
        try:
            while written < len(line):
                written += self._lines.write(line[written:])
        except OSError:
            self._lines.truncate(self._size)
            raise
        self._size += written
        self._count(prediction)

    def _count(self, prediction: Prediction) -> None:
        failed = prediction.text is None
        self.done[prediction.id] = failed
        self.failed += failed
        if failed and not self.reason:
            self.reason = prediction.error or "no reason is given"

    def forget_failed(self) -> None:
        """Remove the lines of photos that failed, so that they count as not done."""
        self._lines.close()  # Windows does not replace a file that is open.
        # The lines themselves are kept, whatever somebody may have added to them.
        lines = self.path.read_bytes().splitlines(keepends=True)
        found = zip(lines, iterate_predictions(self.path), strict=True)
        kept = [line for line, prediction in found if prediction.text is not None]
        atomic_write(self.path, b"".join(kept).decode("utf-8"))
        self.done, self.failed, self.reason = {}, 0, ""
        self._open()

    def sync(self) -> None:
        """Have the system put all lines on the disk, so that a power cut takes none of them."""
        os.fsync(self._lines.fileno())

    def close(self) -> None:
        """Close the file and release the folder."""
        if hasattr(self, "_lines"):
            self._lines.close()
        self._lock.release()


def lock_folder(folder: Path) -> FileLock:
    """Lock a folder, which is made if it is not there.

    Returns:
        A lock, to be released in the end; the system does so when the process ends, however that comes.

    Raises:
        ConfigError: if another process has it, or it cannot be written to.
    """
    path = folder / "run.lock"
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        owner = _read_owner(path)
        if owner and not _OWNER.fullmatch(owner):
            raise ConfigError(
                f"run folder {folder}: its run.lock does not belong to a run and would be replaced; give "
                "another folder"
            )
        try:
            lock.acquire()
        except Timeout:
            owner = (_read_owner(path) or owner).strip()
            raise ConfigError(
                f"run folder {folder}: in use by {owner or 'another process'}; "
                "wait until it ends, or give another folder"
            ) from None
        with suppress(PermissionError):  # Windows keeps everybody off the bytes of a lock.
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"run folder {folder}: {error.strerror}; give a folder that can be written to"
        ) from None
    return lock


def _read_owner(path: Path) -> str:
    """The beginning of a lock's text; empty if there is none, or none that can be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(200).decode("utf-8", "replace")
    except OSError:
        return ""


def _whole_lines(stream: FileIO) -> int:
    """The size of a file without a last line that has no end."""
    if not stream.seek(0, os.SEEK_END):
        return 0
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.rfind(b"\n") + 1

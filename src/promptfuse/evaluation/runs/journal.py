"""The lines of a run on disk: one writer, no line lost or written twice, whatever ends the process."""

from __future__ import annotations

import fcntl
import os
import re
import socket
from pathlib import Path
from types import TracebackType

from promptfuse._utils.atomic_files import atomic_write
from promptfuse.errors import ConfigError
from promptfuse.evaluation.predictions import Prediction, is_whole, iterate_predictions

_OWNER = re.compile(rb"process \d+ on [^\n]*\n")
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
        self._lines = self._lock = -1

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
        self._lines = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._size = _whole_lines(self._lines)
        rest = os.pread(self._lines, os.fstat(self._lines).st_size - self._size, self._size)
        if is_whole(rest):  # Somebody's editor writes no last line feed.
            os.write(self._lines, b"\n")
            self._size += len(rest) + 1
        else:
            os.ftruncate(self._lines, self._size)

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
                written += os.write(self._lines, line[written:])
        except OSError:
            os.ftruncate(self._lines, self._size)
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
        # The lines themselves are kept, whatever somebody may have added to them.
        lines = self.path.read_bytes().splitlines(keepends=True)
        found = zip(lines, iterate_predictions(self.path), strict=True)
        kept = [line for line, prediction in found if prediction.text is not None]
        atomic_write(self.path, b"".join(kept).decode("utf-8"))
        os.close(self._lines)
        self.done, self.failed, self.reason = {}, 0, ""
        self._open()

    def sync(self) -> None:
        """Have the system put all lines on the disk, so that a power cut takes none of them."""
        os.fsync(self._lines)

    def close(self) -> None:
        """Close the file and let go of the folder."""
        for descriptor in (self._lines, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._lines = self._lock = -1


def lock_folder(folder: Path) -> int:
    """Lock a folder, which is made if it is not there.

    Returns:
        A descriptor, to be closed in the end; the system does so when the process ends, however that comes.

    Raises:
        ConfigError: if another process has it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(lock, 200).decode("utf-8", "replace").strip()
            os.close(lock)
            if not isinstance(error, BlockingIOError):
                raise
            raise ConfigError(
                f"run folder {folder}: in use by {owner or 'another process'}; "
                "wait for its end or give another folder"
            ) from None
        if os.fstat(lock).st_size and not _OWNER.fullmatch(os.pread(lock, 200, 0)):
            os.close(lock)
            raise ConfigError(
                f"run folder {folder}: its run.lock is not a run's and would be replaced; give another folder"
            )
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError as error:
        raise ConfigError(
            f"run folder {folder}: {error.strerror}; give a folder that can be written to"
        ) from None
    return lock


def _whole_lines(descriptor: int) -> int:
    """The size of a file without a last line that has no end."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    block = 1 << 16
    while end > 0:
        start = max(0, end - block)
        place = os.pread(descriptor, end - start, start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0

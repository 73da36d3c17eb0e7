"""Where the files of a run go: a local folder, or an address that whole copies of them are put to."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from promptfuse._utils.addresses import is_address
from promptfuse._utils.messages import one_line
from promptfuse._utils.paths import cache_root
from promptfuse.errors import ConfigError
from promptfuse.evaluation.run_files import LINES, MANIFEST
from promptfuse.evaluation.runs.journal import lock_folder
from promptfuse.evaluation.runs.manifest import read_manifest, require_same


class LocalOutput:
    """A run folder on a local path.

    Args:
        folder: the path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(self) -> None:
        """Get what is there already."""

    def push(self, *, at_once: bool = False) -> None:
        """Put what there is now; not more often than is good, unless it is to be at once."""
        del at_once


class RemoteOutput(LocalOutput):
    """A run folder at an address that fsspec knows, such as ``s3://bucket/runs/first``.

    Files at such addresses cannot be appended to. So the run is written to a folder of the user's cache, and
    whole copies are put to the address at the start, now and then, and at the end. A resumed run takes
    whichever of the two was written last, by its manifest.

    Args:
        address: the folder's.
        every: seconds between two copies, at least.
    """

    def __init__(self, address: str, every: float = 60.0) -> None:
        name = hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:24]
        super().__init__(cache_root() / "runs" / name)
        self.address, self.every = address.rstrip("/"), every
        self._pushed = time.monotonic()

    def fetch(self) -> None:
        """Get what is at the address, if that is newer.

        Raises:
            ConfigError: if the address cannot be read, or another process works on the run.
        """
        lock = lock_folder(self.folder)  # Nobody writes to the copies that are replaced.
        try:
            self._fetch()
        finally:
            lock.release()

    def _fetch(self) -> None:
        with self._file_system() as (system, root), TemporaryDirectory(dir=self.folder) as copies:
            names = [name for name in (LINES, MANIFEST) if system.exists(f"{root}/{name}")]
            for name in names:
                system.get_file(f"{root}/{name}", str(Path(copies, name)))
            self._check(Path(copies), names)
            if names and _written(Path(copies)) > _written(self.folder):
                # The manifest last: until then the old one says that there is something newer to get.
                for name in names:
                    Path(copies, name).replace(self.folder / name)

    def push(self, *, at_once: bool = False) -> None:
        """Put whole copies to the address, if the last ones are old enough or it is to be at once.

        Raises:
            ConfigError: if the address cannot be written to.
        """
        if not at_once and time.monotonic() - self._pushed < self.every:
            return
        with self._file_system() as (system, root):
            system.makedirs(root, exist_ok=True)
            # The manifest first: lines without one are nobody's, while it may promise lines that do not come.
            for name in (MANIFEST, LINES):
                system.put_file(str(self.folder / name), f"{root}/{name}")
        self._pushed = time.monotonic()

    def _check(self, copies: Path, names: list[str]) -> None:
        """Raise ``ConfigError`` where copies would replace files of somebody else's, or another run's."""
        here = read_manifest(self.folder)
        if names == [LINES] and (here is not None or (copies / LINES).stat().st_size):
            raise ConfigError(
                f"run folder {self.address}: has predictions but no {MANIFEST}; give another address"
            )
        there = read_manifest(copies)
        if here is not None and there is not None:
            require_same(self.address, there, here)

    @contextmanager
    def _file_system(self) -> Iterator[tuple[Any, str]]:
        try:
            from fsspec.core import url_to_fs

            system, root = url_to_fs(self.address)
            yield system, str(root).rstrip("/")
        except ImportError as error:
            needed = error.name or "fsspec"
            raise ConfigError(f"{self.address}: needs the package {needed}; install it") from None
        except ConfigError:
            raise
        except Exception as error:  # Each file system has exceptions of its own.
            raise ConfigError(
                f"{self.address}: {one_line(error)}; check the address and the credentials; "
                f"what is done so far is in {self.folder}; run the same command to resume"
            ) from None


def _written(folder: Path) -> str:
    """When a run's manifest was written last; of lines without one, earlier than any; then nothing at all."""
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest.sessions[-1].updated if manifest.sessions else "0"
    return " " if (folder / LINES).exists() else ""


def open_output(place: str | os.PathLike[str]) -> LocalOutput:
    """The run folder of a path or an address."""
    place = os.fspath(place)
    return RemoteOutput(place) if is_address(place) else LocalOutput(Path(place))

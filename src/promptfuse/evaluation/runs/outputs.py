"""Where the files of a run go: a local folder, or an address that whole copies of them are put to."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.addresses import is_address

FILES = ("predictions.jsonl", "manifest.json")
"""What a run consists of."""


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
    """A run folder behind an address that fsspec knows, such as ``s3://bucket/runs/first``.

    Files behind such addresses cannot be appended to. So the run is written to a folder of the user's
    cache, and whole copies are put to the address every now and then and at the end. When a run goes on,
    whichever of the two has more lines counts: what the other lacks would come out the same.

    Args:
        address: the folder's.
        every: seconds between two copies, at least.
    """

    def __init__(self, address: str, every: float = 60.0) -> None:
        root = os.environ.get("PROMPTFUSE_CACHE") or platformdirs.user_cache_dir("promptfuse")
        name = hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:24]
        super().__init__(Path(root).expanduser() / "runs" / name)
        self.address, self.every = address.rstrip("/"), every
        self._pushed = time.monotonic()

    def fetch(self) -> None:
        """See ``LocalOutput``.

        Raises:
            ConfigError: if the address cannot be read.
        """
        with self._file_system() as (system, root):
            lines, copy = f"{root}/{FILES[0]}", self.folder / FILES[0]
            there = int(system.size(lines)) if system.exists(lines) else 0
            if there <= (copy.stat().st_size if copy.exists() else 0):
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                part = self.folder / f"{name}.fetched"
                system.get_file(f"{root}/{name}", str(part))
                part.replace(self.folder / name)

    def push(self, *, at_once: bool = False) -> None:
        """See ``LocalOutput``.

        Raises:
            ConfigError: if the address cannot be written to.
        """
        if not at_once and time.monotonic() - self._pushed < self.every:
            return
        with self._file_system() as (system, root):
            system.makedirs(root, exist_ok=True)
            for name in FILES:
                system.put_file(str(self.folder / name), f"{root}/{name}")
        self._pushed = time.monotonic()

    @contextmanager
    def _file_system(self) -> Iterator[tuple[Any, str]]:
        try:
            from fsspec.core import url_to_fs

            system, root = url_to_fs(self.address)
            yield system, str(root).rstrip("/")
        except ImportError as error:
            needed = error.name or "fsspec"
            raise ConfigError(f"{self.address}: needs the package {needed}; install it") from None
        except Exception as error:  # Each file system has exceptions of its own.
            said = " ".join((str(error) or type(error).__name__).split())[:200]
            raise ConfigError(
                f"{self.address}: {said}; check the address and the credentials; "
                f"what is done so far is in {self.folder}, and the same command goes on"
            ) from None


def open_output(place: str | os.PathLike[str]) -> LocalOutput:
    """The run folder of a path or an address."""
    place = os.fspath(place)
    return RemoteOutput(place) if is_address(place) else LocalOutput(Path(place))

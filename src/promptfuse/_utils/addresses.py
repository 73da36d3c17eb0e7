"""Files that are not on a local path: ``https://``, ``s3://``, ``gs://``, ``memory://`` and the like.

The standard library reads ``http://`` and ``https://``. fsspec reads all else, and is imported only when
needed.
"""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from promptfuse._utils.messages import one_line
from promptfuse.errors import PromptfuseError
from promptfuse.version import __version__

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
"""Two letters at least, so that ``C://photos`` is a path."""

_SILENCE = 30
"""Seconds without a byte after which a download over the web is given up."""

_PART = 1 << 20
"""Bytes that are asked for at once."""


def is_address(text: str) -> bool:
    """Whether a text is an address with a scheme; a local path otherwise."""
    return _SCHEME.match(text) is not None


def join(folder: str, relative: str) -> str:
    """The address of a file in a folder, which may be in an archive: ``zip://folder::s3://bucket/a.zip``."""
    inner, chained, archive = folder.partition("::")
    scheme, _, path = inner.partition("://")
    path = "/".join(part for part in (path.rstrip("/"), relative.removeprefix("./").lstrip("/")) if part)
    return f"{scheme}://{path}{chained}{archive}"


def parent(address: str) -> str:
    """The address of the folder that a file is in."""
    inner, chained, archive = address.partition("::")
    scheme, _, path = inner.partition("://")
    return f"{scheme}://{path.rstrip('/').rpartition('/')[0]}{chained}{archive}"


def name_of(address: str) -> str:
    """The last part of an address; of the archive if that is empty."""
    inner, _, archive = address.rstrip("/").partition("::")
    return inner.partition("://")[2].rstrip("/").rpartition("/")[2] or archive.rpartition("/")[2]


def read_bytes(
    address: str, limit: int, error: type[PromptfuseError], patience: float | None = None
) -> bytes:
    """The contents of a file.

    Args:
        address: where it is.
        limit: the most bytes that it may have.
        error: what is raised.
        patience: the most seconds that it may take; None for no limit. A server that is silent for half a
            minute is given up in any case.

    Raises:
        PromptfuseError: of the kind asked for, if it cannot be read, takes too long or is larger than the
            limit.
    """
    with _explained(address, error), _reading(address) as file:
        # A response may be short of what is asked for before the file is at its end.
        parts, left, start = [], limit + 1, time.monotonic()
        while left > 0 and (part := file.read(min(left, _PART))):
            parts.append(part)
            left -= len(part)
            if patience is not None and time.monotonic() - start > patience:
                raise error(f"{address}: not finished after {patience:g} seconds; download it yourself")
    if left <= 0:
        raise error(f"{address}: more than {limit:,} bytes, refused; give a smaller file")
    return b"".join(parts)


def _over_web(address: str) -> bool:
    return address.lower().startswith(("http://", "https://")) and "::" not in address


@contextmanager
def _reading(address: str) -> Iterator[Any]:
    """A file to be read."""
    if _over_web(address):
        # Some sites refuse clients without a name.
        request = urllib.request.Request(address, headers={"User-Agent": f"promptfuse/{__version__}"})
        with urllib.request.urlopen(request, timeout=_SILENCE) as file:
            yield file
    else:
        system, path = _open(address)  # An archive is closed when nobody holds its file system.
        with system.open(path, "rb") as file:
            yield file


def is_folder(address: str, error: type[PromptfuseError]) -> bool:
    """Whether an address is one of a folder.

    Raises:
        PromptfuseError: of the kind asked for, if the file system cannot be reached.
    """
    with _explained(address, error):
        system, path = _open(address)
        return bool(system.isdir(path))


def exists(address: str, error: type[PromptfuseError]) -> bool:
    """Whether there is such a file or folder.

    Raises:
        PromptfuseError: of the kind asked for, if the file system cannot be reached.
    """
    with _explained(address, error):
        system, path = _open(address)
        return bool(system.exists(path))


def files_under(address: str, error: type[PromptfuseError]) -> list[str]:
    """Paths of all files of a folder and those below, relative to it, in no particular order.

    Raises:
        PromptfuseError: of the kind asked for, if the folder cannot be listed.
    """
    with _explained(address, error):
        system, path = _open(address)
        root = path.rstrip("/") + "/" if path else ""  # Nothing is the top of an archive.
        return [found[len(root) :] for found in system.find(path) if found.startswith(root)]


def _open(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(address)
    return system, str(path)


@contextmanager
def _explained(address: str, kind: type[PromptfuseError]) -> Iterator[None]:
    """Turn whatever a file system raises into one line."""
    try:
        yield
    except PromptfuseError:
        raise
    except ImportError as error:
        if error.name == "fsspec":
            raise kind(f"{address}: reading addresses needs fsspec; pip install fsspec") from None
        raise kind(f"{address}: a package is missing ({one_line(error)}); install it") from None
    except FileNotFoundError:
        raise kind(f"{address}: no such file; check the address") from None
    except PermissionError as error:
        raise kind(f"{address}: no permission ({one_line(error)}); check the credentials") from None
    except Exception as error:  # Each file system has exceptions of its own.
        raise kind(f"{address}: cannot be read ({one_line(error)}); check the address") from None

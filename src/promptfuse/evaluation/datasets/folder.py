"""A folder of photos, with those of its subfolders."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from promptfuse._utils.addresses import files_under, is_address
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.records import Contents, Row

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm")
)
"""What names of photos end in, in lower case."""


def files_of(folder: str) -> list[str]:
    """Paths of all files of a folder and those below, relative to it, sorted.

    Hidden files and folders are passed over; links to folders are followed.

    Args:
        folder: a path or an address.

    Raises:
        ConfigError: if it or a folder below cannot be listed.
    """
    found = files_under(folder, ConfigError) if is_address(folder) else _paths_below(Path(folder))
    return sorted(path for path in found if not any(part.startswith(".") for part in path.split("/")))


def read_folder(files: Iterable[str]) -> Contents:
    """The photos among the files of a folder; their paths relative to it are the ids.

    Raises:
        ConfigError: if the name of a photo is not Unicode.
    """
    contents = Contents()
    for relative in filter(is_photo, files):
        try:
            relative.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"the name {relative!r} is not UTF-8, so no id can be made of it; rename it"
            ) from None
        contents.rows.append(Row(relative, relative, (relative,), []))
    return contents


def is_photo(relative: str) -> bool:
    """Whether a path within a folder is that of a photo, by its name."""
    path = PurePosixPath(relative)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _paths_below(folder: Path) -> list[str]:
    found: list[str] = []
    seen: set[tuple[int, int]] = set()

    def failed(error: OSError) -> None:
        raise ConfigError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions")

    for place, folders, files in os.walk(folder, onerror=failed, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:  # A link to a folder above would go on for ever.
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(place).relative_to(folder).as_posix()
        found.extend(name if below == "." else f"{below}/{name}" for name in files)
    return found

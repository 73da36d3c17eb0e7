"""A folder of photos, with those of its subfolders."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from promptfuse.addresses import files_under
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.records import Contents, Row

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm")
)
"""What names of photos end in, in lower case."""


def read_folder(folder: Path) -> Contents:
    """The photos of a local folder, sorted by their paths relative to it, which are the ids.

    Hidden files and folders are passed over; links to folders are followed.

    Raises:
        ConfigError: if a folder cannot be listed, or the name of a photo is no Unicode.
    """
    return _rows(paths_below(folder))


def read_remote_folder(address: str) -> Contents:
    """The photos of a folder behind an address, as ``read_folder`` gives them.

    Raises:
        ConfigError: if it cannot be listed.
    """
    return _rows(files_under(address, ConfigError))


def is_photo(relative: str) -> bool:
    """Whether a path within a folder is that of a photo, by its name."""
    path = PurePosixPath(relative)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _rows(relatives: list[str]) -> Contents:
    contents = Contents()
    for relative in sorted(filter(is_photo, relatives)):
        try:
            relative.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"the name {relative!r} is not UTF-8, so no id can be made of it; rename it"
            ) from None
        contents.rows.append(Row(relative, relative, (relative,), []))
    return contents


def paths_below(folder: Path) -> list[str]:
    """Paths of all files of a local folder and those below, relative to it, in no particular order.

    Hidden folders are passed over; links to folders are followed.

    Raises:
        ConfigError: if a folder cannot be listed.
    """
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

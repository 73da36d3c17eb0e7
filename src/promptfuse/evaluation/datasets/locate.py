"""Finding the files of photos.

Each folder is listed once, so that 120,000 photos are not 120,000 questions to a slow disk.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.addresses import is_address, join, parent
from promptfuse.evaluation.datasets.records import Row
from promptfuse.paths import at_home

SUBFOLDERS = (
    "images",
    "Images",
    "val2014",
    "train2014",
    "test2014",
    "val2017",
    "train2017",
    "test2017",
    "val",
    "train",
    "test",
    "Flicker8k_Dataset",  # Spelt so in the archive.
    "flickr8k-images",
    "flickr30k-images",
    "flickr30k_images",
    "photos",
)
"""Where data sets usually have their photos."""


class _Place(NamedTuple):
    """Where a photo was found: its path, and the folder and the form of its name that led there."""

    path: str
    root: str
    form: int


class Locator:
    """Finds photos in the folders where they may be.

    Attributes:
        roots: the folders, the likeliest first. An address is believed without asking.
    """

    def __init__(self, source: str, images: str | None = None) -> None:
        """Look for the folders.

        Args:
            source: the file of the data set.
            images: the folder of the photos. By default that of the file and its usual subfolders, then the
                usual subfolders beside it, as COCO has them.

        Raises:
            ConfigError: if there is no such folder.
        """
        self._listings: dict[str, dict[str, str]] = {}
        if images is not None and not is_address(images) and not at_home(images).is_dir():
            raise ConfigError(f"{images}: no such folder of photos; check the path")
        if images is None and is_address(source):
            images = parent(source)
        if images is not None and is_address(images):
            self.roots = [images]
            return
        if images is not None:
            first = at_home(images)
            candidates = [first, *(first / name for name in SUBFOLDERS)]
        else:
            first = Path(source).parent
            beside = Path(os.path.abspath(first)).parent  # noqa: PTH100 - links stay as they are given
            candidates = [first, *(folder / name for folder in (first, beside) for name in SUBFOLDERS)]
        self.roots = [str(folder) for folder in candidates if folder.is_dir()] or [str(first)]

    def locate(self, rows: Sequence[Row]) -> tuple[list[str], list[int]]:
        """The path or address of each row's photo, and the indices of those that are missing.

        Of a missing one the path is given where most others are. Photos behind addresses are never missing.

        Raises:
            ConfigError: if a folder cannot be listed.
        """
        found = [self._find(row) for row in rows]
        most = Counter((place.root, place.form) for place in found if place).most_common(1)
        root, form = most[0][0] if most else (self.roots[0], 0)
        paths, missing = [], []
        for index, (row, place) in enumerate(zip(rows, found, strict=True)):
            if place is None:
                missing.append(index)
                paths.append(_below(root, row.names[min(form, len(row.names) - 1)]))
            else:
                paths.append(place.path)
        return paths, missing

    def _find(self, row: Row) -> _Place | None:
        for root in self.roots:
            for form, name in enumerate(row.names):
                path = self._in(root, name, last=form + 1 == len(row.names))
                if path is not None:
                    return _Place(path, root, form)
        return None

    def _in(self, root: str, name: str, last: bool) -> str | None:
        """The path or address of a photo in one of the folders; None if it is not there."""
        if is_address(name):
            return name
        forward = name.replace("\\", "/")  # As Windows writes it.
        if is_address(root):
            # Nobody can be asked: the first form is taken, unless its folder is the root itself.
            folder = forward.rpartition("/")[0]
            is_root = bool(folder) and root.partition("::")[0].rstrip("/").endswith(f"/{folder}")
            return join(root, forward) if last or not is_root else None
        path = self._on_disk(_below(root, name))
        return path if path or forward == name else self._on_disk(_below(root, forward))

    def _on_disk(self, path: str) -> str | None:
        """The path as the disk spells it; None if there is no such file."""
        folder, name = os.path.split(path)
        listing = self._listings.get(folder)
        if listing is None:
            try:
                listing = {_key(entry): entry for entry in os.listdir(folder or ".")}  # noqa: PTH208
            except (FileNotFoundError, NotADirectoryError, ValueError):
                listing = {}
            except OSError as error:
                raise ConfigError(
                    f"{folder}: cannot be listed ({error.strerror}); check its permissions"
                ) from None
            self._listings[folder] = listing
        entry = listing.get(_key(name))
        return None if entry is None else os.path.join(folder, entry)  # noqa: PTH118


def _key(name: str) -> str:
    """What names of the same file have in common: some disks decompose accents, some fold case."""
    return os.path.normcase(name if name.isascii() else unicodedata.normalize("NFC", name))


def _below(root: str, name: str) -> str:
    # Written as pathlib writes it, so that one file has one path.
    return os.path.join("" if root == "." else root, name.removeprefix("./"))  # noqa: PTH118

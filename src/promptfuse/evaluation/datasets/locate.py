"""Finding the files of photos.

Each folder is listed once, so that 120,000 photos are not 120,000 questions to a slow disk.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from promptfuse._utils.addresses import exists, is_address, join, parent
from promptfuse._utils.paths import expand_user
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.records import Row

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
    *(f"images/{name}{year}" for year in (2014, 2017) for name in ("val", "train", "test")),
    "Flicker8k_Dataset",  # Spelt so in the archive.
    "flickr8k-images",
    "flickr30k-images",
    "flickr30k_images",
    "train_images",  # TextCaps has its validation photos there too.
    "test_images",
    "photos",
)
"""Where data sets usually have their photos."""


class Located(NamedTuple):
    """Where the photos of a data set are.

    Attributes:
        paths: the path or address of each row's photo.
        missing: the indices of those that are not there; their paths are where most others are.
        ambiguous: the first photo that is taken though another folder has one of its name, and the other;
            empty if there is none.
    """

    paths: list[str]
    missing: list[int]
    ambiguous: tuple[str, ...] = ()


class _Place(NamedTuple):
    """Where a photo was found: its path, and the folder and the form of its name that led there."""

    path: str
    root: str
    form: int


class Locator:
    """Finds photos in the folders where they may be.

    Attributes:
        roots: the folders, the likeliest first. Of several addresses the one that has the first photo is
            taken to have all; a single one is not asked.
    """

    def __init__(self, source: str, images: str | None = None) -> None:
        """Look for the folders.

        Args:
            source: the file of the data set.
            images: the folder of the photos. By default that of the file and its usual subfolders, then the
                usual subfolders beside it, as COCO has them; first those that the file's own name speaks of,
                ``train`` for ``captions_train.json``.

        Raises:
            ConfigError: if there is no such folder.
        """
        self._listings: dict[str, dict[str, str]] = {}
        if images is not None and not is_address(images) and not expand_user(images).is_dir():
            raise ConfigError(f"{images}: no such folder of photos; check the path")
        if images is None and is_address(source):
            images = parent(source)
        if images is not None and is_address(images):
            self.roots = [images]
            if is_address(source):  # It was read from there, so that there is an answer.
                above = (images, parent(images))
                self.roots += [join(folder, name) for folder in above for name in SUBFOLDERS]
            return
        if images is not None:
            first = expand_user(images)
            candidates = [first, *(first / name for name in SUBFOLDERS)]
        else:
            first = Path(source).parent
            beside = Path(os.path.abspath(first)).parent  # noqa: PTH100 - links stay as they are given
            candidates = [first, *(folder / name for folder in (first, beside) for name in SUBFOLDERS)]
        stem = Path(source).stem.lower()
        folders = [folder for folder in dict.fromkeys(candidates) if folder.is_dir()]
        if images is None:  # A folder that is given goes first.
            folders.sort(key=lambda folder: not _speaks_of(stem, folder.name.lower()))
        self.roots = [str(folder) for folder in folders] or [str(first)]

    def locate(self, rows: Sequence[Row]) -> Located:
        """The path or address of each row's photo, and which are missing or not the only ones of their name.

        Photos at addresses count as found.

        Raises:
            ConfigError: if a folder cannot be listed.
        """
        if is_address(self.roots[0]) and len(self.roots) > 1:
            self.roots = [self._with_first(rows)]
        found = [self._find(row, self.roots) for row in rows]
        most = Counter((place.root, place.form) for place in found if place).most_common(1)
        root, form = most[0][0] if most else (self.roots[0], 0)
        paths, missing = [], []
        for index, (row, place) in enumerate(zip(rows, found, strict=True)):
            if place is None:
                missing.append(index)
                paths.append(_below(root, row.names[min(form, len(row.names) - 1)]))
            else:
                paths.append(place.path)
        return Located(paths, missing, self._ambiguous(rows, found))

    def _ambiguous(self, rows: Sequence[Row], places: Sequence[_Place | None]) -> tuple[str, ...]:
        """The first photo whose name another folder has too: it may be that of another split."""
        real: dict[str, str] = {}

        def is_link(root: str, to: str) -> bool:
            """Whether two folders are one; asked once for each."""
            for folder in (root, to):
                if folder not in real:
                    real[folder] = os.path.realpath(folder)
            return real[root] == real[to]

        for row, place in zip(rows, places, strict=True):
            if place is None or is_address(place.path):
                continue
            for root in self.roots:
                try:
                    other = self._in(root, row.names[place.form], last=True) if root != place.root else None
                    if other is None or other == place.path or is_link(root, place.root):
                        continue
                    if not os.path.samefile(other, place.path):  # noqa: PTH121
                        return place.path, other
                except (OSError, ConfigError):
                    continue  # A folder that cannot be read, or a link to nowhere, has no other photo.
        return ()

    def _with_first(self, rows: Sequence[Row]) -> str:
        """The address that has the first photo; the likeliest if none has it."""
        first = next((row for row in rows if not is_address(row.names[0])), None)
        if first is None:
            return self.roots[0]
        for root in self.roots:
            place = self._find(first, [root])
            try:
                if place is not None and exists(place.path, ConfigError):
                    return root
            except ConfigError:
                break  # What is wrong is told where the photos are opened.
        return self.roots[0]

    def _find(self, row: Row, roots: Sequence[str]) -> _Place | None:
        for root in roots:
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


def _speaks_of(stem: str, folder: str) -> bool:
    """Whether a file's name has the name of a folder as a part: ``captions_val2014`` has ``val2014``."""
    return re.search(rf"(?<![a-z0-9]){re.escape(folder)}(?![a-z0-9])", stem) is not None


def _key(name: str) -> str:
    """What names of the same file have in common: some disks decompose accents, some fold case."""
    return os.path.normcase(name if name.isascii() else unicodedata.normalize("NFC", name))


def _below(root: str, name: str) -> str:
    # Written as pathlib writes it, so that one file has one path.
    return os.path.join("" if root == "." else root, name.removeprefix("./"))  # noqa: PTH118

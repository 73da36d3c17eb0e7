"""Data sets by path or by name: ``read_dataset`` is what runs and scores call."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from promptfuse._utils.addresses import is_address, name_of
from promptfuse._utils.paths import expand_user
from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.hugging_face import is_hub_name, name_and_split
from promptfuse.evaluation.datasets.karpathy import RESTVAL
from promptfuse.evaluation.datasets.names import find_name
from promptfuse.evaluation.datasets.reading import Scan, scan
from promptfuse.evaluation.datasets.records import Dataset, Photo


def read_dataset(
    source: str | PathLike[str],
    *,
    format: str = "auto",
    images: str | PathLike[str] | None = None,
    split: str | None = None,
    start: int = 0,
    limit: int | None = None,
    name: str | None = None,
    keep_rejected: bool = False,
) -> Dataset:
    """Read a data set; photos are looked for but not opened.

    A photo whose file is missing stays in the data set, and ``problems`` say how many these are.

    Args:
        source: a file, a folder of photos, an address of either (``s3://...``), a registered name, or
            ``hf:owner/name`` or ``hf:owner/name:split`` for the Hugging Face hub. What exists as a path is
            a path.
        format: ``karpathy``, ``coco``, ``table``, ``folder``, ``datasets`` or ``auto``, which looks at the
            content.
        images: the folder of the photos. By default that of the file, or one of its usual subfolders, such
            as ``images`` or ``val2014``, where the photos are found.
        split: photos of this split only. ``train`` includes ``restval`` of Karpathy's COCO.
        start: photos of the split that are passed over.
        limit: the most photos that are taken after those; all of them by default.
        name: what the data set is called; by default its registered name, or that of the file or folder.
        keep_rejected: whether captions count that the data set marks by ``is_rejected`` or ``is_precanned``,
            as VizWiz does; by default they are left out, and ``problems`` say how many.

    Raises:
        ConfigError: if it cannot be read, has wrong fields, ids that occur twice, or no photos of that kind.
    """
    if start < 0:
        raise ConfigError(f"start must be at least 0, got {start}")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, got {limit}")
    place = locate_source(source, format=format, images=images, split=split, name=name)
    found = scan(place.source, format=place.format, images=place.images, keep_rejected=keep_rejected)
    if found.duplicate_ids:
        image_id, (first, second) = next(iter(found.duplicate_ids.items()))
        more = f" and {len(found.duplicate_ids) - 1:,} more ids" if len(found.duplicate_ids) > 1 else ""
        raise ConfigError(
            f"{place.source}: the id {image_id!r}{more} occurs twice ({first}, {second}); "
            "give each photo its own id"
        )
    chosen = of_split(found, place.split, place.source)
    if start >= len(chosen):
        raise ConfigError(
            f"{place.source}: start {start} is past the last of its {len(chosen):,} photos; give less"
        )
    kept = chosen[start:] if limit is None else chosen[start : start + limit]
    found.write_photos(kept)
    missing = _missing(found, kept)
    return Dataset(
        name=place.name,
        source=place.source,
        format=found.format,
        photos=tuple(found.photos[index] for index in kept),
        problems=(*found.problems, *missing),
        photo_problems=(*found.photo_problems, *missing),
    )


@dataclass(frozen=True)
class Place:
    """Where a data set is, and how it is read; the fields are those of `read_dataset`."""

    source: str
    name: str
    format: str = "auto"
    images: str | None = None
    split: str | None = None


def locate_source(
    source: str | PathLike[str],
    *,
    format: str = "auto",
    images: str | PathLike[str] | None = None,
    split: str | None = None,
    name: str | None = None,
) -> Place:
    """Find a path, an address or a registered name; what is given goes before what is registered.

    Raises:
        ConfigError: if there is nothing of that name.
    """
    text = os.fspath(source)
    folder = None if images is None else os.fspath(images)
    if not text:
        raise ConfigError("the data set has no path; give a file, a folder or a name")
    if is_hub_name(text):
        path_or_name, wanted = name_and_split(text)
        return Place(text, name or Path(path_or_name).stem, format, folder, split or wanted)
    if not is_address(text):
        path = expand_user(text)
        if "\0" in text or not os.path.lexists(path):
            entry = find_name(text)
            return Place(
                entry.source,
                name or text,
                entry.format if format == "auto" else format,
                folder or entry.images,
                split or entry.split,
            )
        text = str(path)
    last = name_of(text) if is_address(text) else Path(os.path.abspath(text)).name  # noqa: PTH100
    return Place(text, name or Path(last).stem or "photos", format, folder, split)


def of_split(found: Scan, split: str | None, source: str) -> Sequence[int]:
    """Indices of the photos of a split, or of all.

    Raises:
        ConfigError: if there are none.
    """
    if split is None:
        return range(len(found.photos))
    wanted = {split, RESTVAL} if split == "train" and found.format == "karpathy" else {split}
    chosen = [index for index, photo in enumerate(found.photos) if photo.split in wanted]
    if not chosen:
        counts = splits(found.photos)
        if not counts:
            raise ConfigError(f"{source}: has no splits, so no {split!r}; leave out the split")
        raise ConfigError(f"{source}: no photos in the split {split!r}; {nearest(split, counts)}")
    return chosen


def splits(photos: Sequence[Photo]) -> dict[str, int]:
    """How many photos each split has, in their order; photos in none are not counted."""
    return dict(Counter(photo.split for photo in photos if photo.split))


def _missing(found: Scan, kept: Sequence[int]) -> list[str]:
    wanted = set(kept)
    gone = [index for index in found.missing if index in wanted]
    if not gone:
        return []
    return [
        f"{len(gone):,} of {len(kept):,} photos are missing, e.g. {found.photos[gone[0]].image}; "
        "check the folder of the photos"
    ]

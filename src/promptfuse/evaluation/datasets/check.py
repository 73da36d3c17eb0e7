"""What is in a data set, what is missing from it, and what cannot be read: every photo is decoded."""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from loky import cpu_count

from promptfuse._utils.addresses import is_address
from promptfuse.errors import ImageError
from promptfuse.evaluation.datasets.reading import scan
from promptfuse.evaluation.datasets.records import Photo
from promptfuse.evaluation.datasets.registry import locate_source, of_split, splits
from promptfuse.models.images import load_image

Progress = Callable[[int, int], None]
"""Called with how many photos are done, of how many."""

NAMED = 10
"""So many of each kind of bad photos are named in the text; JSON has all."""

_AHEAD = 32
"""Photos for each thread that are handed out at once, so that a million take no memory."""


@dataclass(frozen=True)
class BadPhoto:
    """A photo that cannot be used, and why."""

    id: str
    image: str
    reason: str


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        name: what the data set is called.
        source: its file, folder or address.
        format: as detected or as asked for.
        split: the split that was checked; None for all photos.
        photos: how many.
        splits: photos of each split of the whole source; ``""`` counts those in none, if others are in one.
        captions: how many there are of each photo, in order.
        without_captions: ids of the photos that have none.
        missing: photos whose files are not there.
        unreadable: photos that are not images, are damaged, too small or far too large.
        duplicate_ids: ids that several photos have, with the places of the first two.
        duplicate_images: files that several photos have, with the ids of these.
        problems: what else is odd, a line each.
        seconds: what the check took.
    """

    name: str
    source: str
    format: str
    split: str | None
    photos: int
    splits: dict[str, int]
    captions: Sequence[int]
    without_captions: Sequence[str]
    missing: Sequence[BadPhoto]
    unreadable: Sequence[BadPhoto]
    duplicate_ids: dict[str, tuple[str, str]]
    duplicate_images: dict[str, list[str]]
    problems: Sequence[str]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether all photos can be used."""
        return not (self.missing or self.unreadable or self.duplicate_ids)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "name": self.name,
            "source": self.source,
            "format": self.format,
            "split": self.split,
            "photos": self.photos,
            "ok": self.ok,
            "splits": self.splits,
            "captions": {
                "total": sum(self.captions),
                "min": min(self.captions),
                "median": statistics.median(self.captions),
                "max": max(self.captions),
            },
            "without_captions": list(self.without_captions),
            "missing": [{"id": bad.id, "image": bad.image} for bad in self.missing],
            "unreadable": [vars(bad) for bad in self.unreadable],
            "duplicate_ids": [
                {"id": key, "places": list(where)} for key, where in self.duplicate_ids.items()
            ],
            "duplicate_images": [{"image": key, "ids": ids} for key, ids in self.duplicate_images.items()],
            "problems": list(self.problems),
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _captions(self) -> str:
        least, most = min(self.captions), max(self.captions)
        if least == most:
            return f"{sum(self.captions):,}; {most} a photo" if most else "none"
        middle = statistics.median(self.captions)
        return f"{sum(self.captions):,}; {least} to {most} a photo, median {middle:g}"

    def _lines(self) -> Iterator[str]:
        of = f" in the split {self.split}" if self.split is not None else ""
        yield f"{self.source}: {self.format}, {self.photos:,} photo{'s' * (self.photos != 1)}{of}"
        if self.splits:
            counts = (f"{name or '(none)'} {count:,}" for name, count in self.splits.items())
            yield f"  splits            {', '.join(counts)}"
        yield f"  captions          {self._captions()}"
        # A folder has no captions at all, which needs no list.
        some = self.without_captions if any(self.captions) else ()
        yield from _listed("without captions", len(some), some)
        yield from _listed("missing", len(self.missing), (bad.image for bad in self.missing))
        reasons = (f"{bad.image}: {bad.reason}" for bad in self.unreadable)
        yield from _listed("unreadable", len(self.unreadable), reasons)
        twice = (f"{key!r} ({', '.join(places)})" for key, places in self.duplicate_ids.items())
        yield from _listed("ids twice", len(self.duplicate_ids), twice)
        shared = (f"{key} ({', '.join(ids[:3])})" for key, ids in self.duplicate_images.items())
        yield from _listed("files twice", len(self.duplicate_images), shared)
        for problem in self.problems:
            yield f"  note: {problem}"


def check_dataset(
    source: str | PathLike[str],
    *,
    format: str = "auto",
    images: str | PathLike[str] | None = None,
    split: str | None = None,
    keep_rejected: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Read a data set and decode every photo of it.

    Args:
        source: a file, a folder of photos, an address, ``hf:owner/name`` or a registered name.
        format: ``karpathy``, ``coco``, ``table``, ``folder``, ``datasets`` or ``auto``.
        images: the folder of the photos, if it is not near the file.
        split: photos of this split only.
        keep_rejected: whether captions count that the data set marks as rejected.
        workers: threads that decode; by default one for each core.
        progress: told how far it is, now and then.

    Raises:
        ConfigError: if it cannot be read at all. Ids that occur twice are reported instead.
    """
    begin = time.perf_counter()
    place = locate_source(source, format=format, images=images, split=split)
    found = scan(place.source, format=place.format, images=place.images, keep_rejected=keep_rejected)
    kept = of_split(found, place.split, place.source)
    gone = set(found.missing)
    photos = [found.photos[index] for index in kept]
    there = [found.photos[index] for index in kept if index not in gone]
    lost = [found.photos[index] for index in kept if index in gone]
    missing = [BadPhoto(photo.id, photo.image, "no such file") for photo in lost]
    counts = splits(found.photos)
    outside = len(found.photos) - sum(counts.values())
    found.write_photos(kept)
    by_file: dict[str, list[str]] = {}
    for photo in photos:
        by_file.setdefault(_file(photo), []).append(photo.id)
    problems = list(found.problems)
    if len(missing) == len(photos):
        problems.append(
            f"no photo was found in {', '.join(found.looked_in)}; --images DIR says where they are"
        )
    return CheckReport(
        name=place.name,
        source=place.source,
        format=found.format,
        split=place.split,
        photos=len(photos),
        splits=counts | ({"": outside} if counts and outside else {}),
        captions=[len(photo.references) for photo in photos],
        without_captions=[photo.id for photo in photos if not photo.references],
        missing=missing,
        unreadable=_unreadable(there, workers or cpu_count(), progress),
        duplicate_ids=found.duplicate_ids,
        duplicate_images={file: ids for file, ids in by_file.items() if len(ids) > 1},
        problems=problems,
        seconds=time.perf_counter() - begin,
    )


def _unreadable(photos: Sequence[Photo], workers: int, progress: Progress | None) -> list[BadPhoto]:
    """Those that do not open, in order; a file that several photos have is decoded once."""
    files = {_file(photo): photo.image for photo in photos}
    reasons: dict[str, str] = {}
    keys = list(files)
    # Threads do: decoders let go of the interpreter. The filters of warnings belong to the process, so that
    # a thread cannot silence what its decoder warns of without the others; all are silenced at once.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")
        for first in range(0, len(keys), workers * _AHEAD):
            part = keys[first : first + workers * _AHEAD]
            outcomes = pool.map(_reason, (files[key] for key in part))
            for done, (key, reason) in enumerate(zip(part, outcomes, strict=True), first + 1):
                if reason is not None:
                    reasons[key] = reason
                if progress is not None:
                    progress(done, len(keys))
    return [
        BadPhoto(photo.id, photo.image, reasons[_file(photo)]) for photo in photos if _file(photo) in reasons
    ]


def _reason(image: str) -> str | None:
    """Why a photo does not open; None if it does."""
    try:
        load_image(image)
    except ImageError as error:
        return " ".join(str(error).removeprefix(f"{image if is_address(image) else Path(image)}: ").split())
    except MemoryError:
        return "there is not enough memory to decode it; scale it down"
    return None


def _file(photo: Photo) -> str:
    """What is the same for the same file."""
    return photo.image if is_address(photo.image) else os.path.normpath(photo.image)


def _visible(text: str) -> str:
    """A text in one line: names of files may have line ends and worse in them."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _listed(what: str, count: int, items: Iterable[str]) -> Iterator[str]:
    """A count, and the first of what is counted, a line each."""
    if count:
        yield f"  {what:<17} {count:,}"
        for number, item in enumerate(items):
            if number == NAMED:
                yield f"    and {count - NAMED:,} more"
                return
            yield f"    {_visible(item)}"

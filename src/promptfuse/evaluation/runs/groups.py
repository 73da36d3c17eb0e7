"""Groups of photos: what is computed together, and so the unit that kills and workers cannot split.

Photos that share forward passes have an effect on each other's last bits, as matrix products of other shapes
round otherwise. So that a run gives the same lines whatever interrupts it and whoever computes it, a group's
captions depend on the group alone: its photos are fixed by their places in the data set, all caches are
empty when it begins, and each photo has a thread of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import torch

from promptfuse._utils.memory import give_memory_back, peak_memory
from promptfuse.errors import ImageError, TextError
from promptfuse.evaluation.datasets import Photo, open_photo
from promptfuse.evaluation.predictions import Prediction
from promptfuse.evaluation.recipes import Describer
from promptfuse.tasks.many import run_interleaved


@dataclass(frozen=True)
class Group:
    """Photos that are in flight together.

    Attributes:
        number: its place among the groups of the run.
        photos: in the data set's order.
        seeds: one for each photo.
    """

    number: int
    photos: tuple[Photo, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """What a group cost.

    Attributes:
        seconds: from its begin to its end.
        peak_memory_bytes: the largest resident size of the process so far.
        peak_device_bytes: the most memory that tensors took on the GPU so far.
    """

    seconds: float
    peak_memory_bytes: int
    peak_device_bytes: int


def make_groups(photos: Sequence[Photo], in_flight: int, seed: int = 0, start: int = 0) -> list[Group]:
    """Cut photos into groups.

    Args:
        photos: those of a run.
        in_flight: photos in a group.
        seed: of the data set's first photo.
        start: the place of the run's first photo in the data set.
    """
    return [
        Group(
            first // in_flight,
            tuple(photos[first : first + in_flight]),
            tuple(seed + start + place for place in range(first, min(first + in_flight, len(photos)))),
        )
        for first in range(0, len(photos), in_flight)
    ]


def describe_group(describer: Describer, group: Group, on_line: Callable[[Prediction], None]) -> Work:
    """Describe the photos of a group.

    Args:
        describer: with its models loaded.
        group: the photos.
        on_line: called with each photo's prediction as soon as it is known, by one thread at a time. A
            photo that cannot be read has one with the reason.

    Raises:
        ConfigError, ModelError: if the models cannot do what is asked of them.
    """
    describer.clear_text_cache()
    give_memory_back()
    began = since = time.perf_counter()
    in_flight, share = len(group.photos), 0.0
    lock = Lock()

    def describe_photo(number: int) -> None:
        nonlocal since, in_flight, share
        photo, seed = group.photos[number], group.seeds[number]
        caption, error = None, None
        try:
            caption = describer(open_photo(photo.image), seed=seed)
        except (ImageError, TextError) as problem:
            error = " ".join(str(problem).split())
        with lock:
            # The time since the last photo ended is shared by those that were still in flight.
            now = time.perf_counter()
            share += (now - since) / in_flight
            since, in_flight = now, in_flight - 1
            seconds = round(share, 4)
            if caption is None:
                on_line(Prediction(photo.id, photo.image, error=error, seconds=seconds, seed=seed))
            else:
                values = {name: getattr(caption, name) for name in caption.__dataclass_fields__}
                on_line(Prediction(photo.id, photo.image, **values, seconds=seconds, seed=seed))

    run_interleaved(describe_photo, len(group.photos), len(group.photos))
    return Work(time.perf_counter() - began, peak_memory(), _peak_device())


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Have torch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _peak_device() -> int:
    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0

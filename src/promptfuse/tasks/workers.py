"""Photos described by several processes of this machine, each with models of its own.

Photos in flight share their forward passes, but what a search does besides is Python, which runs on one core.
Processes share nothing, so they take as many cores as there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from typing import Any

import torch
from loky.backend.reduction import dumps
from PIL import Image

from promptfuse._utils.processes import BrokenProcessPool, processes
from promptfuse.errors import ConfigError, ImageError
from promptfuse.models import Preset, load_image
from promptfuse.models.images import ImageLike
from promptfuse.tasks.caption import Captioner
from promptfuse.tasks.many import OnOutcome, Outcome, caption_all


@dataclass(frozen=True)
class Order:
    """What all workers are told.

    Attributes:
        preset: whose models each worker loads.
        device: see ``Captioner``.
        in_flight: see `caption_all`.
        settings: see `caption_all`.
        threads: that torch uses in each worker.
    """

    preset: Preset
    device: str | torch.device
    in_flight: int
    settings: dict[str, Any]
    threads: int


def caption_on_workers(
    order: Order, images: Sequence[ImageLike], workers: int, on_outcome: OnOutcome | None = None
) -> list[Outcome]:
    """`caption_all` on several processes.

    Args:
        order: what to do.
        images: paths or open images.
        workers: how many processes.
        on_outcome: called in this process, when the part is done to which a photo belongs.

    Raises:
        ConfigError: if a setting cannot go to another process, or one of the processes is killed.
        ModelError: if a model cannot be loaded.
    """
    if order.settings.get("callbacks"):
        raise ConfigError("callbacks are not called from other processes; leave workers at 1")
    try:
        dumps(order)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"a setting cannot go to another process ({reason}); leave workers at 1") from None
    outcomes: dict[int, Outcome] = {}

    def end(number: int, outcome: Outcome) -> None:
        outcomes[number] = outcome
        if on_outcome is not None:
            on_outcome(number, outcome)

    given: list[tuple[int, ImageLike]] = []
    for number, image in enumerate(images):
        try:  # An image that is open here has to be read here.
            given.append((number, load_image(image) if isinstance(image, Image.Image) else image))
        except ImageError as error:
            end(number, error)
    size = part_size(len(given), workers, order.in_flight)
    parts = [given[first : first + size] for first in range(0, len(given), size)]
    if not parts:
        return [outcomes[number] for number in range(len(images))]
    try:
        with processes(min(workers, len(parts)), order.threads, _begin, order) as pool:
            submitted = {pool.submit(_describe, [image for _, image in part]): part for part in parts}
            for done in as_completed(submitted):
                for (number, _), outcome in zip(submitted[done], done.result(), strict=True):
                    end(number, outcome)
    except BrokenProcessPool:
        raise ConfigError(
            f"workers: one of {workers} processes was killed, maybe for want of memory; give fewer"
        ) from None
    return [outcomes[number] for number in range(len(images))]


def part_size(count: int, workers: int, in_flight: int) -> int:
    """Photos that a worker is given at a time: some times those in flight, but not all at once to one."""
    return max(1, min(4 * in_flight, -(-count // (2 * workers))))


_WORKER: list[tuple[Order, Captioner]] = []
"""What the process of a worker has."""


def _begin(order: Order) -> None:
    """What a worker begins with; the models are loaded with its first photos."""
    _WORKER[:] = [(order, Captioner(order.preset, device=order.device))]


def _describe(images: Sequence[ImageLike]) -> list[Outcome]:
    """What a worker does."""
    order, captioner = _WORKER[0]
    return caption_all(captioner, images, in_flight=order.in_flight, **order.settings)

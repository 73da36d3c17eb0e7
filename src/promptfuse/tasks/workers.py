"""Photos captioned by several processes of this machine, each with models of its own.

Photos in flight share their forward passes, but what a search does besides is Python, which runs on one core.
Processes share nothing, so they take as many cores as there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from loky.backend.reduction import dumps
from PIL import Image

from promptfuse._utils.messages import one_line
from promptfuse._utils.processes import BrokenProcessPool, map_in_processes
from promptfuse.errors import ConfigError, ImageError
from promptfuse.models import Preset, load_image
from promptfuse.models.images import ImageLike
from promptfuse.tasks.caption import Captioner
from promptfuse.tasks.many import OnOutcome, Outcome, caption_all


def caption_on_workers(
    preset: Preset,
    images: Sequence[ImageLike],
    *,
    workers: int,
    device: str | torch.device = "cpu",
    in_flight: int = 8,
    on_outcome: OnOutcome | None = None,
    **settings: Any,
) -> list[Outcome]:
    """`caption_all` on several processes, which share the threads of this one.

    Args:
        preset: whose models each process loads.
        images: paths or open images.
        workers: how many processes.
        device: where the models go.
        in_flight: photos that share forward passes in each process.
        on_outcome: called in this process with a photo's number and outcome, when the part is done to which
            the photo belongs.
        settings: of each search, as ``Captioner.search`` takes them.

    Returns:
        For each photo its result, or the error that it ended with.

    Raises:
        ConfigError: if a setting cannot go to another process, or one of the processes is killed.
        ModelError: if a model cannot be loaded.
    """
    if settings.get("callbacks"):
        raise ConfigError("callbacks cannot be called from other processes; use workers=1")
    make_worker = partial(_make_worker, preset, device, in_flight, settings)
    try:
        dumps(make_worker)
    except Exception as error:
        reason = one_line(error)
        raise ConfigError(f"a setting cannot be sent to another process ({reason}); use workers=1") from None
    outcomes: dict[int, Outcome] = {}

    def deliver(number: int, outcome: Outcome) -> None:
        outcomes[number] = outcome
        if on_outcome is not None:
            on_outcome(number, outcome)

    given: list[tuple[int, ImageLike]] = []
    for number, image in enumerate(images):
        try:  # An image that is open here has to be read here.
            given.append((number, load_image(image) if isinstance(image, Image.Image) else image))
        except ImageError as error:
            deliver(number, error)
    size = part_size(len(given), workers, in_flight)
    parts = [given[first : first + size] for first in range(0, len(given), size)]

    def deliver_part(part: int, found: list[Outcome]) -> None:
        for (number, _), outcome in zip(parts[part], found, strict=True):
            deliver(number, outcome)

    if parts:
        try:
            map_in_processes(
                make_worker,
                ([image for _, image in part] for part in parts),
                deliver_part,
                count=min(workers, len(parts)),
                threads=max(1, torch.get_num_threads() // workers),
            )
        except BrokenProcessPool:
            raise ConfigError(
                f"workers: one of {workers} processes was killed, perhaps for lack of memory; use fewer"
            ) from None
    return [outcomes[number] for number in range(len(images))]


def part_size(count: int, workers: int, in_flight: int) -> int:
    """Photos that a worker is given at a time: some times those in flight, but not all at once to one."""
    return max(1, min(4 * in_flight, -(-count // (2 * workers))))


def _make_worker(
    preset: Preset, device: str | torch.device, in_flight: int, settings: dict[str, Any]
) -> Callable[[Sequence[ImageLike]], list[Outcome]]:
    """What describes photos in a worker's process; the models are loaded with the first of them."""
    return partial(caption_all, Captioner(preset, device=device), in_flight=in_flight, **settings)

"""Describe many photos: the second task of the package."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, Literal

import torch

from promptfuse.errors import ConfigError, PromptfuseError
from promptfuse.models import Preset
from promptfuse.models.images import ImageLike
from promptfuse.search import Result
from promptfuse.tasks.caption import Captioner
from promptfuse.tasks.many import OnOutcome, caption_all


def caption_many(
    images: Sequence[ImageLike],
    *,
    models: str | Preset = "mini",
    sentiment: Literal["positive", "negative"] | None = None,
    in_flight: int = 8,
    workers: int = 1,
    device: str | torch.device = "cpu",
    on_outcome: OnOutcome | None = None,
    **settings: Any,
) -> list[Result]:
    """Describe many photos; see ``caption``.

    Args:
        images: paths or open images.
        models: see ``caption``.
        sentiment: see ``caption``.
        in_flight: how many photos are searched for at the same time; they share the models' batches.
        workers: how many processes do so, each with models and photos of its own. They take some seconds
            to start and as much memory again each; from a hundred photos on as many as there are cores are
            worth it.
        device: where the models go.
        on_outcome: called with a photo's number and its result or error, as soon as it is known.
        settings: as for ``caption``.

    Returns:
        A result for each photo, in order.

    Raises:
        ImageError, ConfigError, ModelError, TextError: the first that a photo ended with, when all are
            done; ``on_outcome`` has been given the others' results.
    """
    settings["sentiment"] = sentiment
    if isinstance(images, str | PathLike):
        raise ConfigError(f"images: {images!r} is one photo; give a list of photos")
    if workers < 1:
        raise ConfigError(f"workers: {workers} is too few; give 1 or more")
    if in_flight < 1:
        raise ConfigError(f"in flight: {in_flight} is too few; give 1 or more")
    captioner = Captioner(models, device=device)
    captioner.check_sentiment(sentiment)
    if workers > 1:
        from promptfuse.tasks.workers import Order, caption_on_workers  # Only now: its import takes time.

        threads = max(1, torch.get_num_threads() // workers)
        order = Order(captioner.preset, device, in_flight, settings, threads)
        outcomes = caption_on_workers(order, images, workers, on_outcome)
    else:
        outcomes = caption_all(captioner, images, in_flight=in_flight, on_outcome=on_outcome, **settings)
    results = []
    for outcome in outcomes:
        if isinstance(outcome, PromptfuseError):
            raise outcome
        results.append(outcome)
    return results

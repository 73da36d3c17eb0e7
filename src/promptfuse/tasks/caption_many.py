"""Describe many photos: the second task of the package."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from os import PathLike
from typing import Any, Literal

import torch
from PIL import Image

from promptfuse._utils.values import whole_number
from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError, PromptfuseError
from promptfuse.models.images import ImageLike
from promptfuse.search import Result
from promptfuse.tasks.caption import Captioner, Models
from promptfuse.tasks.many import OnOutcome, caption_all


def caption_many(
    images: Iterable[ImageLike],
    *,
    models: Models = "mini",
    lm: str | None = None,
    lm_prefix: str | None = None,
    sentiment: Literal["positive", "negative"] | None = None,
    in_flight: int = 8,
    workers: int = 1,
    device: str | torch.device = "cpu",
    on_outcome: OnOutcome | None = None,
    **settings: Any,
) -> list[Result]:
    """Describe many photos; see ``caption``.

    Args:
        images: paths, addresses, open images or arrays, in a list or whatever else gives one by one.
        models: see ``caption``.
        lm: see ``caption``.
        lm_prefix: see ``caption``.
        sentiment: see ``caption``.
        in_flight: how many photos are searched for at the same time; they share the models' batches.
        workers: how many processes do so, each with models and photos of its own. They take some seconds
            to start and as much memory again each; from a hundred photos on as many as there are cores are
            worth it.
        device: where the models go.
        on_outcome: called with a photo's number and its result or error, as soon as it is known.
        settings: ``steer``, ``prefix``, ``effort``, ``steps``, ``beams``, ``candidates``, ``weights``,
            ``seed`` and ``callbacks``, as for ``caption``.

    Returns:
        A result for each photo, in order.

    Raises:
        ImageError, ConfigError, ModelError, TextError: the first that a photo ended with, when all are
            done; ``on_outcome`` has been given the others' results.
    """
    settings["sentiment"] = sentiment
    if isinstance(images, str | PathLike | Image.Image):
        raise ConfigError(f"images: {images!r:.60} is one photo; give a list of photos")
    if not isinstance(images, Iterable):
        raise ConfigError(f"images: {images!r:.60} is no list; give a list of photos")
    images = list(images)
    workers, in_flight = whole_number(workers, "workers"), whole_number(in_flight, "in flight")
    known = [name for name in inspect.signature(Captioner.search).parameters if name not in ("self", "image")]
    for name in settings:
        if name not in known:
            raise ConfigError(f"no setting {name!r}; {nearest(name, known)}")
    if on_outcome is not None and not callable(on_outcome):
        raise ConfigError(f"on_outcome: {on_outcome!r:.60} cannot be called; give a function")
    captioner = Captioner(models, device=device, lm=lm, lm_prefix=lm_prefix)
    captioner.check_sentiment(sentiment)
    if workers > 1:
        from promptfuse.tasks.workers import caption_on_workers  # Only now: its import takes time.

        outcomes = caption_on_workers(
            captioner.preset,
            images,
            workers=workers,
            device=device,
            in_flight=in_flight,
            on_outcome=on_outcome,
            **settings,
        )
    else:
        outcomes = caption_all(captioner, images, in_flight=in_flight, on_outcome=on_outcome, **settings)
    results = []
    for outcome in outcomes:
        if isinstance(outcome, PromptfuseError):
            raise outcome
        results.append(outcome)
    return results

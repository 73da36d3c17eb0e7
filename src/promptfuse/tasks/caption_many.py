"""Caption many photos."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from os import PathLike
from typing import Any, Literal

import torch
from PIL import Image

from promptfuse._utils.progress import progress_bar
from promptfuse._utils.values import whole_number
from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError, PromptfuseError
from promptfuse.models.images import ImageLike
from promptfuse.search import Result
from promptfuse.tasks.caption import Captioner, Models
from promptfuse.tasks.many import OnOutcome, Outcome, caption_all


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
    verbose: bool = False,
    **settings: Any,
) -> list[Result]:
    """Caption many photos; several share the models' batches.

    Args:
        images: an iterable of paths, addresses, open images or arrays of pixels.
        models: a preset's name, a YAML file, the fields of a preset as a mapping, or a ``Preset``.
        lm: language model that replaces the preset's: a Hugging Face id or a local folder.
        lm_prefix: text that the language model alone reads before every caption.
        sentiment: ``positive``, ``negative`` or None.
        in_flight: how many photos to search for at the same time, in each process.
        workers: how many processes to use, each with its own copy of the models. They take some seconds
            to start and as much memory again each. With a hundred photos or more, one for each core pays.
        device: the device of the models.
        on_outcome: called with a photo's number and its result or error, as soon as it is known.
        verbose: show a progress bar on standard error.
        settings: ``steer``, ``prefix``, ``effort``, ``steps``, ``beams``, ``candidates``, ``weights``,
            ``constraints``, ``seed`` and ``callbacks``, as for ``caption``.

    Returns:
        A result for each photo, in order.

    Raises:
        ImageError, ConfigError, ModelError, TextError: the first error of a photo, raised when all photos
            are done; ``on_outcome`` has been given the results of the others.
    """
    settings["sentiment"] = sentiment
    if isinstance(images, str | PathLike | Image.Image):
        raise ConfigError(f"images: {images!r:.60} is one photo; give a list of photos")
    if not isinstance(images, Iterable):
        raise ConfigError(f"images: {images!r:.60} is not a list; give a list of photos")
    images = list(images)
    workers, in_flight = whole_number(workers, "workers"), whole_number(in_flight, "in flight")
    known = [name for name in inspect.signature(Captioner.search).parameters if name not in ("self", "image")]
    for name in settings:
        if name not in known:
            raise ConfigError(f"there is no setting {name!r}; {nearest(name, known)}")
    if on_outcome is not None and not callable(on_outcome):
        raise ConfigError(f"on_outcome: {on_outcome!r:.60} cannot be called; give a function")
    if verbose:
        with _counted(on_outcome, len(images)) as counted:
            return caption_many(
                images,
                models=models,
                lm=lm,
                lm_prefix=lm_prefix,
                in_flight=in_flight,
                workers=workers,
                device=device,
                on_outcome=counted,
                **settings,
            )
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


@contextmanager
def _counted(on_outcome: OnOutcome | None, total: int) -> Iterator[OnOutcome]:
    """A callback that also moves a progress bar."""
    with progress_bar("captions", always=True) as show:
        done = count(1)

        def on_each(number: int, outcome: Outcome) -> None:
            if show is not None:
                show(next(done), total)
            if on_outcome is not None:
                on_outcome(number, outcome)

        yield on_each

"""Many inversions, one after another or in several processes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from os import PathLike
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse._utils.messages import one_line
from promptfuse._utils.progress import progress_bar
from promptfuse._utils.values import whole_number
from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError, PromptfuseError
from promptfuse.models import Model
from promptfuse.models.images import ImageLike
from promptfuse.tasks.inversion import Inversion, Inverter
from promptfuse.tasks.inversion_inputs import (
    Item,
    Kind,
    Target,
    image_items,
    read_targets,
    vector_items,
)
from promptfuse.tasks.query_meter import QueryMeter

Found: TypeAlias = Inversion | PromptfuseError
OnStep = Callable[[Target, QueryMeter], None]
"""Called after every step of a search of this process, with its input and what it has asked so far."""

OnFound = Callable[[Target, Found], None]
"""Called with an input and its inversion or error, in the order of the inputs, as soon as it is known."""


def invert_targets(
    inverter: Inverter,
    targets: Sequence[Target],
    among: Float[Tensor, "inputs d"],
    on_found: OnFound,
    *,
    workers: int = 1,
    keep_results: bool = False,
    on_step: OnStep | None = None,
    make: Callable[[], Inverter] | None = None,
) -> None:
    """Invert embeddings, each by a search of its own; results do not depend on the number of processes.

    Args:
        inverter: the models and settings.
        targets: the embeddings.
        among: those of all inputs, which ranks are counted among.
        on_found: called with each, in their order.
        workers: how many processes.
        keep_results: whether the searches with their steps are kept.
        on_step: called after every step; not from other processes.
        make: makes the inverter in each process; needed for several.

    Raises:
        ConfigError: if something cannot be sent to another process, or a process is killed.
        ModelError: if a model cannot be loaded.
    """
    if workers == 1 or len(targets) < 2:
        for target in targets:
            on_found(target, _invert_one(inverter, among, keep_results, target, on_step))
        return
    from loky.backend.reduction import dumps

    # Only now: its import takes time.
    from promptfuse._utils.processes import BrokenProcessPool, map_in_processes

    assert make is not None
    make_worker = partial(_make_worker, make, among, keep_results)
    try:
        dumps(make_worker)
    except Exception as error:
        raise ConfigError(
            f"a setting cannot be sent to another process ({one_line(error)}); use workers=1"
        ) from None
    waiting: dict[int, Found] = {}
    first = 0

    def deliver(number: int, found: Found) -> None:
        nonlocal first
        waiting[number] = found
        while first in waiting:
            on_found(targets[first], waiting.pop(first))
            first += 1

    try:
        map_in_processes(
            make_worker,
            (_without_image(target) for target in targets),
            deliver,
            count=min(workers, len(targets)),
            threads=max(1, torch.get_num_threads() // workers),
        )
    except BrokenProcessPool:
        raise ConfigError(
            f"workers: one of {workers} processes was killed, perhaps for lack of memory; use fewer"
        ) from None


def _without_image(target: Target) -> Target:
    """A target that is small to send: its vector says all that a search needs."""
    return Target(target.id, target.kind, target.vector, target.digest, target.source)


def _make_worker(
    make: Callable[[], Inverter], among: Float[Tensor, "inputs d"], keep_results: bool
) -> Callable[[Target], Found]:
    """What inverts embeddings in a worker's process."""
    return partial(_invert_one, make(), among, keep_results)


def _invert_one(
    inverter: Inverter,
    among: Float[Tensor, "inputs d"],
    keep_result: bool,
    target: Target,
    on_step: OnStep | None = None,
) -> Found:
    tell = None if on_step is None else partial(on_step, target)
    try:
        return inverter(target, among, keep_result=keep_result, on_step=tell)
    except PromptfuseError as error:
        return error


def invert_many(
    *,
    text: Iterable[str] | None = None,
    embedding: Any = None,
    image: Iterable[ImageLike] | None = None,
    workers: int = 1,
    on_found: Callable[[str, Found], None] | None = None,
    verbose: bool = False,
    **settings: Any,
) -> list[Inversion]:
    """Find a text for each of many embeddings.

    Args:
        text: texts that the encoder embeds.
        embedding: rows of numbers, (inputs, d), or the path of a ``.npy``, ``.safetensors`` or ``.jsonl``
            file.
        image: photos, which an image-text model embeds.
        workers: how many processes to use, each with its own copy of the models, which then have to be given
            by name. Results do not depend on it.
        on_found: called with the name of each input and its inversion or error: first those that cannot be
            used, then the others in their order, each as soon as it is known.
        verbose: show a progress bar on standard error.
        settings: ``models``, ``encoder``, ``lm``, ``lm_prefix``, ``budget``, ``seconds``, ``length``,
            ``style``, ``seed`` and ``device``, as for ``invert``.

    Returns:
        An inversion for each input, in order; its ``rank`` is counted among all.

    Raises:
        ConfigError, ImageError, ModelError, TextError: the first error of an input, raised when all others
            are done; ``on_found`` has been given these.
    """
    kind, items = _items(text, embedding, image)
    workers = whole_number(workers, "workers")
    if workers > 1 and any(isinstance(settings.get(name), Model) for name in ("encoder", "lm")):
        raise ConfigError("workers: a loaded model cannot be sent to another process; give its name")
    known = inspect.signature(Inverter).parameters
    for name in settings:
        if name not in known:
            raise ConfigError(f"there is no setting {name!r}; {nearest(name, known)}")
    make = partial(Inverter, **settings)
    inverter = make()
    targets, broken = read_targets(items, kind, inverter.encoder)
    found: list[Found] = [problem for _, problem in broken]
    if on_found is not None:
        for item, problem in broken:
            on_found(item.id, problem)
    with progress_bar("inverting", always=verbose) as show:

        def deliver(target: Target, one: Found) -> None:
            found.append(one)
            if verbose and show is not None:
                show(len(found), len(items))
            if on_found is not None:
                on_found(target.id, one)

        if targets:
            among = torch.stack([target.vector for target in targets])
            invert_targets(inverter, targets, among, deliver, workers=workers, make=make)
    inversions = []
    for one in found:
        if isinstance(one, PromptfuseError):
            raise one
        inversions.append(one)
    return inversions


def _items(text: Any, embedding: Any, image: Any) -> tuple[Kind, list[Item]]:
    """What the inputs are, and the inputs."""
    given: dict[Kind, Any] = {"text": text, "embedding": embedding, "image": image}
    kinds = [kind for kind, value in given.items() if value is not None]
    if len(kinds) != 1:
        raise ConfigError("text, embedding and image: give one of them")
    (kind,) = kinds
    value = given[kind]
    if kind == "embedding":
        return kind, vector_items(value)
    if isinstance(value, str | PathLike) or not isinstance(value, Iterable):
        raise ConfigError(f"{kind}: {value!r:.60} is not a list; give a list, or use invert")
    if kind == "image":
        return kind, image_items(value)
    return kind, [Item(f"text:{number}", f"text {number}", one) for number, one in enumerate(value)]

"""Many photos at once: several in flight share every forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

from promptfuse.errors import ConfigError, PromptfuseError
from promptfuse.models.images import ImageLike
from promptfuse.search import Result
from promptfuse.search.scheduler import BatchScheduler
from promptfuse.tasks.caption import Captioner

Outcome = Result | PromptfuseError
OnOutcome = Callable[[int, Outcome], None]
"""Called with a photo's number and what became of it, as soon as it is known, by one thread at a time."""


def run_interleaved(work: Callable[[int], None], count: int, in_flight: int) -> None:
    """Do numbered pieces of work, several at a time, in a `BatchScheduler`.

    Where all are in flight at once, what they ask together depends on nothing but the pieces; where there
    are more, also on which ends first.

    Args:
        work: called with each number from 0 to ``count`` - 1, in threads of a meeting.
        count: how many pieces there are.
        in_flight: how many are done at the same time.
    """
    first = min(in_flight, count)
    others: Iterator[int] = iter(range(first, count))

    def begin_with(number: int | None) -> None:
        while number is not None:
            work(number)
            number = next(others, None)

    BatchScheduler().run([partial(begin_with, number) for number in range(first)])


def caption_all(
    captioner: Captioner,
    images: Sequence[ImageLike],
    *,
    in_flight: int = 8,
    on_outcome: OnOutcome | None = None,
    **settings: Any,
) -> list[Outcome]:
    """Caption photos, several at a time.

    Every photo has a search of its own, which gives what it would give alone, up to the rounding of larger
    matrix products.

    Args:
        captioner: the models.
        images: paths or open images.
        in_flight: how many photos are searched for at the same time.
        on_outcome: called as soon as a photo is done.
        settings: of each search; see ``Captioner.search``.

    Returns:
        For each photo its result, or the error that it ended with.

    Raises:
        ConfigError: if ``in_flight`` is not positive.
        ModelError: if a model cannot be loaded.
    """
    if in_flight < 1:
        raise ConfigError(f"in flight: must be at least 1, got {in_flight}")
    captioner.load(settings.get("sentiment"), settings.get("steer", ()))
    outcomes: dict[int, Outcome] = {}

    def work(number: int) -> None:
        outcome: Outcome
        try:
            outcome = captioner(images[number], **settings)
        except PromptfuseError as error:
            outcome = error
        outcomes[number] = outcome
        if on_outcome is not None:
            on_outcome(number, outcome)

    run_interleaved(work, len(images), in_flight)
    return [outcomes[number] for number in range(len(images))]


def caption_each(captioner: Captioner, images: Sequence[ImageLike], **settings: Any) -> Iterator[Outcome]:
    """What `caption_all` gives, photo by photo in their order, each as soon as those before it are known.

    The work stands still while the caller looks at a photo's outcome, so the models may be used meanwhile,
    and it ends with the iterator.

    Args:
        captioner: see `caption_all`.
        images: see `caption_all`.
        settings: see `caption_all`.
    """
    known: SimpleQueue[tuple[int, Outcome] | BaseException] = SimpleQueue()
    wanted: SimpleQueue[bool] = SimpleQueue()

    def hand_over(number: int, outcome: Outcome) -> None:
        known.put((number, outcome))
        if not wanted.get():
            raise _Stopped

    def run() -> None:
        try:
            caption_all(captioner, images, on_outcome=hand_over, **settings)
        except _Stopped:
            pass
        except BaseException as error:
            known.put(error)

    # The caller's thread waits for results, so it cannot be the one that does the work.
    worker = Thread(target=run, daemon=True)
    worker.start()
    outcomes: dict[int, Outcome] = {}
    stands_still = False
    try:
        for number in range(len(images)):
            while number not in outcomes:
                if stands_still:
                    wanted.put(True)
                item = known.get()
                if isinstance(item, BaseException):
                    raise item
                outcomes[item[0]] = item[1]
                stands_still = True
            yield outcomes.pop(number)
    finally:
        wanted.put(False)
        worker.join()


class _Stopped(BaseException):
    """Nobody asks for the remaining photos."""

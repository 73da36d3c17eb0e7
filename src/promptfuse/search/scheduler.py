"""Searches side by side that share their forward passes.

Each search runs in a thread of its own, as if it were alone. Where it asks for work that can be shared, by
`batched_call`, it waits until the others have come to a like call. The calls are then answered at once, by
the thread that runs the `BatchScheduler`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any

from promptfuse._utils.batched_calls import Joint, submitting_to
from promptfuse.errors import PromptfuseError


@dataclass
class _Call:
    """A piece of work that somebody waits for."""

    key: Hashable
    payload: Any
    joint: Joint
    context: Context = field(default_factory=copy_context)
    answer: Any = None
    error: BaseException | None = None


class BatchScheduler:
    """Runs tasks side by side and answers what they submit together.

    Only one thread is ever busy: a member runs until it submits something or ends, then the next one does.
    Threads that all run at once would fight for the interpreter's lock, and numerical libraries would keep
    several pools of threads; and so the same members do the same things in the same order every time. All
    heavy work is done by the thread that calls `run`.

    Attributes:
        rounds: how many times calls were answered.
        calls: how many calls there were.
    """

    def __init__(self) -> None:
        self.rounds = 0
        self.calls = 0
        self._begin(0)

    def _begin(self, members: int) -> None:
        self._waiting: dict[int, _Call] = {}
        # Queues rather than locks and semaphores: an interrupt between two of their steps leaves them whole.
        self._turns: list[SimpleQueue[None]] = [SimpleQueue() for _ in range(members)]
        self._back: SimpleQueue[None] = SimpleQueue()
        self._cancelled = False
        self._failures: list[BaseException] = []

    def run(self, workers: Sequence[Callable[[], None]]) -> None:
        """Run workers to their ends.

        Args:
            workers: each runs in a thread of its own.

        Raises:
            BaseException: the first that a worker raises, when all others have stopped too.
        """
        self._begin(len(workers))
        threads: list[threading.Thread] = []
        try:
            for number, worker in enumerate(workers):
                threads.append(threading.Thread(target=self._attend, args=(number, worker), daemon=True))
                threads[-1].start()
            for number in range(len(workers)):
                self._let(number)
            while self._waiting and not self._failures:
                self._serve()
        finally:  # An interrupt must not leave threads waiting for answers.
            self._cancelled = True
            for turn in self._turns:
                turn.put(None)
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        if self._failures:
            raise self._failures[0]

    def submit(self, number: int, key: Hashable, payload: Any, joint: Joint) -> Any:
        """Wait for the answer to a call of a member; see ``batched_call``."""
        if self._cancelled:
            raise _Cancelled
        call = _Call(key, payload, joint)
        self._waiting[number] = call
        self._back.put(None)
        self._wait(number)
        if call.error is not None:
            raise call.error
        return call.answer

    def _attend(self, number: int, worker: Callable[[], None]) -> None:
        """What a member's thread does."""
        try:
            self._wait(number)
            with submitting_to(partial(self.submit, number)):
                worker()
        except _Cancelled:
            pass
        except BaseException as error:
            self._failures.append(error)
        finally:
            self._back.put(None)

    def _wait(self, number: int) -> None:
        """Have a member wait for its turn."""
        self._turns[number].get()
        if self._cancelled:
            raise _Cancelled

    def _let(self, number: int) -> None:
        """Let a member run until it asks or ends."""
        if not self._failures:
            self._turns[number].put(None)
            self._back.get()

    def _serve(self) -> None:
        """Answer what most members ask for."""
        # Whoever asks for something else waits on, until the others have caught up: answered one by
        # one, members that are out of step would stay so.
        numbers: dict[Hashable, list[int]] = {}
        for number in sorted(self._waiting):
            numbers.setdefault(self._waiting[number].key, []).append(number)
        chosen = max(numbers.values(), key=len)
        calls = [self._waiting.pop(number) for number in chosen]
        _answer(calls)
        self.rounds += 1
        self.calls += len(calls)
        for number in chosen:
            self._let(number)


class _Cancelled(BaseException):
    """Somebody else has failed, so there will be no answer."""


def _alone(joint: Joint, payloads: Sequence[Any]) -> Sequence[Any]:
    """Work for a member, in its context but not as it: what is asked on the way is answered directly."""
    with submitting_to(None):
        return joint(payloads)


def _answer(calls: Sequence[_Call]) -> None:
    """Answer calls of one key: in one go, or one by one where that fails."""
    try:
        payloads = [call.payload for call in calls]
        answers = calls[0].context.run(_alone, calls[0].joint, payloads)
    except PromptfuseError as error:
        if len(calls) == 1:
            calls[0].error = error
            return
        # One that is too long, say, should not spoil the others.
        for call in calls:
            _answer([call])
        return
    except Exception as error:
        for call in calls:
            call.error = error
        return
    for call, answer in zip(calls, answers, strict=True):
        call.answer = answer

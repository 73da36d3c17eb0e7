"""Work of several searches that is done in one go.

A forward pass over many rows takes little longer than one over a few, so searches that run side by side
should share theirs. Each search runs in a thread of its own, as if it were alone. Where it asks for work
that can be shared it calls `together`, and waits there until the others have come to a like call. The
calls are then answered at once, by the thread that runs the `BatchScheduler`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar

from promptfuse.errors import PromptfuseError
from promptfuse.models.fast.prefix import prefix_cache_disabled

Payload = TypeVar("Payload")
Answer = TypeVar("Answer")


def together(
    key: Hashable, payload: Payload, joint: Callable[[Sequence[Payload]], Sequence[Answer]]
) -> Answer:
    """Do a piece of work, with that of other searches where there are any.

    Args:
        key: pieces of work with equal keys can be done in one go.
        payload: the piece of work.
        joint: does several pieces in one go. What it gives for a piece must not depend on the others,
            beyond rounding.

    Raises:
        PromptfuseError: what ``joint`` raises for this piece alone.
    """
    member = _MEMBER.get()
    if member is None:
        return joint([payload])[0]
    answer: Answer = member.meeting.ask(member.number, (key, prefix_cache_disabled()), payload, joint)
    return answer


@dataclass(frozen=True)
class _Member:
    """Who a thread is."""

    meeting: BatchScheduler
    number: int


_MEMBER: ContextVar[_Member | None] = ContextVar("member", default=None)


@dataclass
class _Question:
    """A piece of work that somebody waits for."""

    key: Hashable
    payload: Any
    joint: Callable[[Sequence[Any]], Sequence[Any]]
    context: Context = field(default_factory=copy_context)
    answer: Any = None
    error: BaseException | None = None


class BatchScheduler:
    """Runs tasks side by side and answers what they ask together.

    Only one thread is ever busy: a member runs until it asks for something or ends, then the next one does.
    Threads that all run at once would fight for the interpreter's lock, and numerical libraries would keep
    several pools of threads; and so the same members do the same things in the same order every time. All
    heavy work is done by the thread that calls `run`.

    Attributes:
        rounds: how many times questions were answered.
        questions: how many questions there were.
    """

    def __init__(self) -> None:
        self.rounds = 0
        self.questions = 0
        self._begin(0)

    def _begin(self, members: int) -> None:
        self._waiting: dict[int, _Question] = {}
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

    def ask(
        self, number: int, key: Hashable, payload: Any, joint: Callable[[Sequence[Any]], Sequence[Any]]
    ) -> Any:
        """Wait for an answer; see `together`."""
        if self._cancelled:
            raise _Cancelled
        question = _Question(key, payload, joint)
        self._waiting[number] = question
        self._back.put(None)
        self._wait(number)
        if question.error is not None:
            raise question.error
        return question.answer

    def _attend(self, number: int, worker: Callable[[], None]) -> None:
        """What a member's thread does."""
        _MEMBER.set(_Member(self, number))
        try:
            self._wait(number)
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
        questions = [self._waiting.pop(number) for number in chosen]
        _answer(questions)
        self.rounds += 1
        self.questions += len(questions)
        for number in chosen:
            self._let(number)


class _Cancelled(BaseException):
    """Somebody else has failed, so there will be no answer."""


def _alone(joint: Callable[[Sequence[Any]], Sequence[Any]], payloads: Sequence[Any]) -> Sequence[Any]:
    """Work for a member, in its context but not as it: what is asked on the way is answered directly."""
    _MEMBER.set(None)
    return joint(payloads)


def _answer(questions: Sequence[_Question]) -> None:
    """Answer questions of one key: in one go, or one by one where that fails."""
    try:
        payloads = [question.payload for question in questions]
        answers = questions[0].context.run(_alone, questions[0].joint, payloads)
    except PromptfuseError as error:
        if len(questions) == 1:
            questions[0].error = error
            return
        # One that is too long, say, should not spoil the others.
        for question in questions:
            _answer([question])
        return
    except Exception as error:
        for question in questions:
            question.error = error
        return
    for question, answer in zip(questions, answers, strict=True):
        question.answer = answer

"""Work that several searches can have done in one go.

A forward pass over many rows takes little longer than one over a few, so searches that run side by side
should share theirs. Where code asks for work that can be shared it calls `batched_call`. Alone, the work is
done at once; within a scheduler (``promptfuse.search.scheduler``) the call waits for like calls of others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from promptfuse._utils.prefix_cache import prefix_cache_disabled

Payload = TypeVar("Payload")
Answer = TypeVar("Answer")
Joint = Callable[[Sequence[Any]], Sequence[Any]]
Submit = Callable[[Hashable, Any, Joint], Any]
"""Takes a key, a payload and what does several payloads in one go, and gives this payload's answer."""

_SUBMIT: ContextVar[Submit | None] = ContextVar("submit", default=None)


def batched_call(
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
    submit = _SUBMIT.get()
    if submit is None:
        return joint([payload])[0]
    answer: Answer = submit((key, prefix_cache_disabled()), payload, joint)
    return answer


@contextmanager
def submitting_to(submit: Submit | None) -> Iterator[None]:
    """A block whose batched calls go to ``submit``; None to do them at once."""
    token = _SUBMIT.set(submit)
    try:
        yield
    finally:
        _SUBMIT.reset(token)

"""The switch that has models read every text whole: the reference for what goes on from known beginnings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_DISABLED: ContextVar[bool] = ContextVar("prefix_cache_disabled", default=False)


@contextmanager
def disable_prefix_cache() -> Iterator[None]:
    """A block in which every model reads and encodes every text whole."""
    token = _DISABLED.set(True)
    try:
        yield
    finally:
        _DISABLED.reset(token)


def prefix_cache_disabled() -> bool:
    """Whether the code runs within ``disable_prefix_cache``."""
    return _DISABLED.get()

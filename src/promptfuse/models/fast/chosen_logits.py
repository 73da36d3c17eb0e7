"""Logits of some tokens only: the vocabulary is the larger half of a small model's work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident

from torch import Tensor, nn


@contextmanager
def chosen_only(
    head: nn.Module | None, chosen: tuple[Tensor, ...] | None, rows: int, columns: int
) -> Iterator[list[bool]]:
    """Have a model project only some of its tokens to the vocabulary, into one row of logits.

    Args:
        head: what projects; None if it is not known.
        chosen: rows and columns of the tokens; None for all.
        rows: of the whole batch.
        columns: of the whole batch.

    Yields:
        A list that is not empty once it has been done: not every model calls its head with all tokens.
    """
    taken: list[bool] = []
    if head is None or chosen is None:
        yield taken
        return

    asker = get_ident()

    def choose(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        del module
        if get_ident() != asker or not args or args[0].shape[:2] != (rows, columns):
            return None
        taken.append(True)
        return (args[0][chosen][None], *args[1:])

    handle = head.register_forward_pre_hook(choose)
    try:
        yield taken
    finally:
        handle.remove()

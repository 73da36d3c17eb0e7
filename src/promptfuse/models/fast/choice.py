"""Which reader a model gets: the first that agrees with the plain one in a trial on this very model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from promptfuse.models.batch import Batch
from promptfuse.models.branches import Branches
from promptfuse.models.fast.protocol import PrefixReader
from promptfuse.models.trial import UNREADABLE

logger = logging.getLogger("promptfuse")

_LENGTHS = (20, 48)
"""Lengths of rows that tell whether some tokens are out of sight, as beyond a window of attention."""

_SHORT = 8
"""Tokens that the other rows of a trial have at most."""


@dataclass(frozen=True)
class Trial:
    """What readers are compared on.

    Attributes:
        ids: ordinary token ids, at least four.
        tail: the tokens that end every row, such as an end mark.
        longest: tokens of the longest row that the model takes.
        collate: makes a batch of rows.
        tolerance: of an output, absolute and relative.
        products: a block in which the model multiplies as it does when it goes on from prefixes.
    """

    ids: Sequence[int]
    tail: tuple[int, ...]
    longest: int
    collate: Callable[[Sequence[Sequence[int]]], Batch]
    tolerance: float
    products: Callable[[], AbstractContextManager[None]]

    @torch.no_grad()
    def reach(self, reader: PrefixReader, plain: PrefixReader) -> int:
        """The longest row up to which a reader gives what the plain one does; 0 if it never does."""
        one, two, three, four = self.ids[:4]
        beginnings = [(one, two, three, four), (one, two, three), ()]
        rows = [
            [one, two, three, four, one, three],
            [one, two, three, four, two, two, three, one],
            [one, two, four, three],
            [one, two, three, one],
            [two],
        ]
        if not self._agree(reader, plain, rows, beginnings, (0, 0, 0, 1, 2), (4, 4, 2, 3, 0)):
            return 0
        reached = _SHORT
        for size in _LENGTHS:
            if size > min(self.longest, reader.longest):
                break
            count = size - len(self.tail)
            row = [self.ids[(index * index + index) % len(self.ids)] for index in range(count)]
            if not self._agree(reader, plain, [row], [tuple(row[:-3])], (0,), (count - 3,)):
                return reached
            reached = size
        return reader.longest

    def _agree(
        self,
        reader: PrefixReader,
        plain: PrefixReader,
        rows: Sequence[Sequence[int]],
        beginnings: Sequence[tuple[int, ...]],
        prefix_index: tuple[int, ...],
        prefix_length: tuple[int, ...],
    ) -> bool:
        try:
            batch = self.collate([[*row, *self.tail] for row in rows])
            expected = plain.outputs(batch, None)
            with self.products():
                prefixes = tuple(reader.prefixes(beginnings))
                found = reader.outputs(batch, Branches(prefixes, prefix_index, prefix_length))
        except UNREADABLE:
            return False
        finally:
            reader.clear()
        return found.shape == expected.shape and torch.allclose(
            found, expected, rtol=self.tolerance, atol=self.tolerance
        )


def choose_reader(
    name: str, plain: PrefixReader, candidates: Iterable[PrefixReader], trial: Trial | None
) -> PrefixReader:
    """The first reader that agrees with the plain one, else the plain one; says which in the log.

    Args:
        name: what messages call the model.
        plain: reads every row whole.
        candidates: those that should hold for a model of this kind, the fastest first.
        trial: what they are tried on; None where there are no candidates.
    """
    failed: list[str] = []
    for reader in candidates:
        reach = trial.reach(reader, plain) if trial is not None else 0
        if reach:
            reader.longest = reach
            logger.info("%s: texts are read by %s", name, reader.name)
            return reader
        failed.append(reader.name)
    if failed:
        logger.warning(
            "%s: %s differs from a plain forward pass, so texts are read whole, which takes longer; "
            "try another version of transformers",
            name,
            ", ".join(dict.fromkeys(failed)),
        )
    logger.info("%s: texts are read by %s", name, plain.name)
    return plain

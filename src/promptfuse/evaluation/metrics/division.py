"""Which labelled texts a judge trains on, and which it is measured on."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from promptfuse.errors import ConfigError

LEAST_TRAINING = 10
LEAST_HELD_OUT = 5
"""The fewest texts of a label on either side."""

LIMIT = 3000
"""The most texts of a label, unless another number is asked for."""

SHARE = 0.2
"""The share of texts that are held out, of those for which nobody says on which side they are."""


def normalised(text: str) -> str:
    """What texts that say the same have in common: their words, whatever the case and punctuation."""
    found = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", found)) or found.strip()


@dataclass(frozen=True)
class Division:
    """Which texts are trained on, and which are for measuring.

    Attributes:
        training: indices.
        held_out: indices; none of these texts is the same as one that is trained on, after normalising.
        notices: what was left out, a line each.
    """

    training: tuple[int, ...]
    held_out: tuple[int, ...]
    notices: tuple[str, ...] = ()


def divide(
    texts: Sequence[str],
    labels: Sequence[str],
    held_out: Sequence[bool | None] | None = None,
    *,
    limit: int | None = LIMIT,
    seed: int = 0,
) -> Division:
    """Divide texts into those to train on and those to measure on.

    A side that is given is kept. The rest is drawn for each label, and identical texts go to one side; the
    draw does not depend on the order of the texts. Texts are identical if their words are. Of identical texts
    with the same label one counts, and a text that is held out anywhere is never trained on.

    Args:
        texts: (n,).
        labels: (n,).
        held_out: (n,), True where a text is for measuring, False for training, None where it may be either;
            None for all of them.
        limit: the most texts of a label: of those on a given side, and of those that may be on either; None
            for all.
        seed: of the draw.

    Raises:
        ConfigError: if there are fewer than two labels, or too few texts of a label on a side.
    """
    kinds = sorted(set(labels))
    if len(kinds) < 2:
        found = f"all texts are labelled {kinds[0]!r}" if kinds else "there are no labelled texts"
        raise ConfigError(f"{found}; give texts of at least two labels")
    given: Sequence[bool | None] = held_out if held_out is not None else [None] * len(texts)
    keys = [normalised(text) for text in texts]
    sides = _sides(zip(keys, given, strict=True))
    kept: dict[tuple[str, str], int] = {}
    twice = 0
    for index, (key, label) in enumerate(zip(keys, labels, strict=True)):
        if sides[key] and given[index] is False:
            twice += 1
        else:
            kept.setdefault((key, label), index)
    # A text with several labels, which people differ on, is drawn once.
    owners: dict[str, str] = {}
    for key, label in sorted(kept):
        owners.setdefault(key, label)
    measured: dict[str, bool] = {}
    notices = []
    for number, label in enumerate(kinds):
        generator = np.random.default_rng([seed, number])
        own = sorted(key for key, owner in owners.items() if owner == label)
        for side in (False, True, None):
            pool = [key for key in own if sides[key] is side]
            drawn = [pool[place] for place in generator.permutation(len(pool))[:limit]]
            if len(drawn) < len(pool):
                notices.append(f"{len(drawn):,} of {len(pool):,} texts labelled {label!r} are drawn")
            count = max(LEAST_HELD_OUT, round(SHARE * len(drawn)))
            measured |= {key: place < count if side is None else side for place, key in enumerate(drawn)}
    both = [
        [index for (key, _), index in kept.items() if measured.get(key) is side] for side in (False, True)
    ]
    for label in kinds:
        _check(label, *(sum(labels[index] == label for index in side) for side in both))
    if twice:
        notices.append(f"left out of training, since they are also held out: {twice:,}")
    if len(kept) > len(owners):
        notices.append(f"with more than one label: {len(kept) - len(owners):,}")
    return Division(tuple(sorted(both[0])), tuple(sorted(both[1])), tuple(notices))


def _sides(given: Iterable[tuple[str, bool | None]]) -> dict[str, bool | None]:
    """The side of each text: held out if it is anywhere, else for training if it is anywhere."""
    found: dict[str, bool | None] = {}
    for key, side in given:
        before = found.setdefault(key, side)
        if side is not None:
            found[key] = bool(before) or side
    return found


def _check(label: str, training: int, held_out: int) -> None:
    """Raise a ``ConfigError`` if a label has too few texts on a side."""
    if training < LEAST_TRAINING or held_out < LEAST_HELD_OUT:
        raise ConfigError(
            f"too few texts have the label {label!r}: {training} to train on and {held_out} held out; give "
            f"{LEAST_TRAINING} and {LEAST_HELD_OUT}, or {LEAST_TRAINING + LEAST_HELD_OUT} without splits"
        )

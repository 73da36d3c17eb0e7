"""Words of texts, and words that come again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise


def words_of(text: str) -> list[str]:
    """The words of a text, without case and punctuation."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.casefold())


def runs_of(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """All runs of so many words."""
    return list(zip(*(words[offset:] for offset in range(size)), strict=False))


def find_echo(words: Sequence[str]) -> str | None:
    """The first word that occurs twice in a row."""
    return next((second for first, second in pairwise(words) if first == second), None)


def find_repeat(words: Sequence[str], size: int) -> tuple[str, ...] | None:
    """The first run of so many words that has been there before."""
    seen: set[tuple[str, ...]] = set()
    for run in runs_of(words, size):
        if run in seen:
            return run
        seen.add(run)
    return None

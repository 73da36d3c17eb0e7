"""Which texts a proposal may make, and which of them may be returned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

from promptfuse.errors import ConfigError


def words_of(text: str) -> list[str]:
    """The words of a text, without case and punctuation."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.casefold())


class _Beginning(NamedTuple):
    """What is known of the words of a text's beginning."""

    words: tuple[str, ...]
    runs: frozenset[tuple[str, ...]]
    repeats: bool
    echoes: bool


@lru_cache(maxsize=1024)
def _beginning(text: str, size: int) -> _Beginning:
    words = words_of(text)
    runs = _runs(words, size) if size else []
    known = frozenset(runs)
    echoes = any(first == second for first, second in pairwise(words))
    return _Beginning(tuple(words), known, len(known) < len(runs), echoes)


def _runs(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """All runs of so many words."""
    return list(zip(*(words[offset:] for offset in range(size)), strict=False))


@dataclass(frozen=True)
class Constraints:
    """Rules for texts: some that every kept text obeys, some that a complete text obeys besides.

    That the primary's tokenizer reads a text back to the very ids that made it is always required. Words
    are compared without their case.

    Attributes:
        ascii: only printable ASCII characters.
        no_repeat_ngram: no run of this many words twice in one text; 0 allows repeats.
        no_echo: no word directly behind itself.
        banned: words and phrases that must not occur.
        banned_patterns: regular expressions that must not match anywhere in a text.
        required: words, or phrases of several words, that a complete text has.
        vocabulary: the only words allowed, None for all. The last word of a text may be the beginning of
            one of them, since a text may grow; in a complete text it may not.
        min_words: the fewest words of a complete text.
        max_words: the most words of any text, None for no limit.
        min_tokens: the fewest tokens of a complete text under the primary.
        max_tokens: the most tokens of any text under the primary, None for no limit.
        round_trip: every model's tokenizer must read a text back from its own ids, without unknown
            tokens; a text that a model cannot spell is not kept.

    Raises:
        ConfigError: if rules are malformed or contradict each other.
    """

    ascii: bool = True
    no_repeat_ngram: int = 2
    no_echo: bool = True
    banned: tuple[str, ...] = ()
    banned_patterns: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] | None = None
    min_words: int = 0
    max_words: int | None = None
    min_tokens: int = 0
    max_tokens: int | None = None
    round_trip: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                raise ConfigError(f"{field.name}: {value!r} is one string; give a list, e.g. [{value!r}]")
            if isinstance(value, list):  # From YAML and JSON; a frozen object holds tuples.
                object.__setattr__(self, field.name, tuple(value))
        for pattern in self.banned_patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"banned_patterns: {pattern!r} is no regular expression: {error}") from None
        for kind in ("words", "tokens"):
            low, high = getattr(self, f"min_{kind}"), getattr(self, f"max_{kind}")
            if low < 0 or (high is not None and high < max(low, 1)):
                raise ConfigError(f"min_{kind} {low} and max_{kind} {high} leave no text; change either")
        for phrase in self.banned:
            if not words_of(phrase):
                raise ConfigError(f"banned: {phrase!r} has no word; give words, or banned_patterns")
        for phrase, words in zip(self.required, self._required_words, strict=True):
            if not words:
                raise ConfigError(f"required: {phrase!r} has no word; give words")
            if set(words) & self._banned_words or self._has_banned_run(words):
                raise ConfigError(f"required: {phrase!r} is banned too; drop it from either")
            if self.vocabulary is not None and not set(words) <= self._vocabulary_words:
                raise ConfigError(f"required: {phrase!r} is not in the vocabulary; add it there")

    @cached_property
    def _banned_words(self) -> frozenset[str]:
        return frozenset(words[0] for words in map(words_of, self.banned) if len(words) == 1)

    @cached_property
    def _banned_runs(self) -> tuple[tuple[str, ...], ...]:
        """Banned entries of several words, such as those with a hyphen."""
        return tuple(tuple(words) for words in map(words_of, self.banned) if len(words) > 1)

    def _has_banned_run(self, words: Sequence[str]) -> bool:
        return any(run in _runs(words, len(run)) for run in self._banned_runs)

    @cached_property
    def _banned_expressions(self) -> tuple[re.Pattern[str], ...]:
        return tuple(re.compile(pattern) for pattern in self.banned_patterns)

    @cached_property
    def _required_words(self) -> tuple[list[str], ...]:
        return tuple(words_of(phrase) for phrase in self.required)

    @cached_property
    def _vocabulary_words(self) -> frozenset[str]:
        return frozenset(word for entry in self.vocabulary or () for word in words_of(entry))

    @cached_property
    def _vocabulary_beginnings(self) -> frozenset[str]:
        return frozenset(word[:end] for word in self._vocabulary_words for end in range(1, len(word) + 1))

    @cached_property
    def _vocabulary_text(self) -> str:
        return " ".join(sorted(self._vocabulary_words))

    def allows_token(self, text: str) -> bool:
        """Whether a token's text can be part of an allowed text."""
        if "\n" in text or "\r" in text or "\t" in text:
            return False
        if self.ascii and not (text.isascii() and text.isprintable()):
            return False
        if self.vocabulary is None:
            return True
        return all(word in self._vocabulary_text for word in words_of(text))

    def allows(self, text: str, tokens: int | None = None) -> bool:
        """Whether a text keeps the rules for every text.

        Args:
            text: the whole text.
            tokens: how many it has under the primary, where ``max_tokens`` is to be checked.
        """
        # Texts grow at the end, so that what stands before the last blank has mostly been looked at.
        border = max(text.rfind(" "), 0)
        size = self.no_repeat_ngram
        head, new = _beginning(text[:border], size), words_of(text[border:])
        if self.no_echo and (head.echoes or any(a == b for a, b in pairwise([*head.words[-1:], *new]))):
            return False
        if size:
            runs = _runs([*head.words[max(len(head.words) - size + 1, 0) :], *new], size)
            if head.repeats or len(set(runs)) < len(runs) or not head.runs.isdisjoint(runs):
                return False
        words = [*head.words, *new]
        if self._banned_words and not self._banned_words.isdisjoint(words):
            return False
        if self._has_banned_run(words):
            return False
        if any(pattern.search(text) for pattern in self._banned_expressions):
            return False
        if self.max_words is not None and len(words) > self.max_words:
            return False
        if self.max_tokens is not None and tokens is not None and tokens > self.max_tokens:
            return False
        if self.vocabulary is None or not words:
            return True
        inner = self._vocabulary_words.issuperset(words[:-1])
        return inner and (words[-1] in self._vocabulary_beginnings)

    def completes(self, text: str, tokens: int) -> bool:
        """Whether an allowed text has all that a complete text needs besides."""
        words = words_of(text)
        if len(words) < self.min_words or tokens < self.min_tokens:
            return False
        if self.vocabulary is not None and not self._vocabulary_words.issuperset(words):
            return False
        return not self.missing(text)

    def missing(self, text: str) -> list[str]:
        """The required phrases that a text does not have yet."""
        if not self.required:
            return []
        words = words_of(text)
        pairs = zip(self.required, self._required_words, strict=True)
        return [phrase for phrase, wanted in pairs if not _contains(words, wanted)]

    def progress(self, text: str) -> int:
        """How much of the required phrases a text has: 2 for each word, 1 for a word under way.

        Of a phrase that is not complete, the words count that the text ends with.
        """
        if not self.required:
            return 0
        words = words_of(text)
        growing = bool(words) and text[-1:].isalnum()
        return sum(_progress(words, wanted, growing) for wanted in self._required_words)


def _progress(words: Sequence[str], wanted: Sequence[str], growing: bool) -> int:
    """See ``Constraints.progress``, for one phrase; ``growing`` if the last word may go on."""
    if _contains(words, wanted):
        return 2 * len(wanted)
    best = 0
    for count in range(len(wanted)):
        if list(words[len(words) - count :]) == list(wanted[:count]):
            best = max(best, 2 * count)
        head, last = words[: len(words) - 1], words[-1:]
        if (
            growing
            and wanted[count].startswith(last[0])
            and list(head[len(head) - count :]) == list(wanted[:count])
        ):
            best = max(best, 2 * count + 1)
    return best


def _contains(words: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a run of words occurs in another one."""
    size = len(wanted)
    return any(list(words[start : start + size]) == list(wanted) for start in range(len(words) - size + 1))

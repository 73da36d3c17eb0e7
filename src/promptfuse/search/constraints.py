"""Which texts a proposal may make, and which of them may be returned."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from promptfuse.errors import ConfigError
from promptfuse.search.characters import bad_character, show_character
from promptfuse.search.words import find_echo, find_repeat, runs_of, words_of


class _Beginning(NamedTuple):
    """What is known of the words of a text's beginning."""

    words: tuple[str, ...]
    runs: frozenset[tuple[str, ...]]
    repeats: bool
    echoes: bool


@lru_cache(maxsize=1024)
def _beginning(text: str, size: int) -> _Beginning:
    words = words_of(text)
    runs = runs_of(words, size) if size else []
    known = frozenset(runs)
    return _Beginning(tuple(words), known, len(known) < len(runs), find_echo(words) is not None)


@dataclass(frozen=True)
class Constraints:
    """Rules for texts: some that every kept text obeys, some that a complete text obeys besides.

    That the primary's tokenizer reads a text back to the very ids that made it is always required. Words
    are compared without their case.

    Attributes:
        ascii: only printable ASCII characters. True: in the whole text, so that a prefix or a text to begin
            with that has others is refused. None: in all that a search adds to a prefix or a text to begin
            with, which may have others. False: any characters. Control and format characters, line breaks
            among them, never stand in a text.
        no_repeat_ngram: no run of this many words twice in one text; 0 allows repeats.
        no_repeated_word: no word twice in a row.
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
        ellipsis: whether a text that trails off ("Once upon a time...") may be complete.

    Raises:
        ConfigError: if rules are malformed or contradict each other.
    """

    ascii: bool | None = None
    no_repeat_ngram: int = 2
    no_repeated_word: bool = True
    banned: tuple[str, ...] = ()
    banned_patterns: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] | None = None
    min_words: int = 0
    max_words: int | None = None
    min_tokens: int = 0
    max_tokens: int | None = None
    round_trip: bool = True
    ellipsis: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _checked(field.name, getattr(self, field.name)))
        for pattern in self.banned_patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"banned_patterns: {pattern!r} is not a valid regular expression: {error}"
                ) from None
        _check_rules(self)

    @cached_property
    def _banned_words(self) -> frozenset[str]:
        return frozenset(words[0] for words in map(words_of, self.banned) if len(words) == 1)

    @cached_property
    def _banned_runs(self) -> tuple[tuple[str, ...], ...]:
        """Banned entries of several words, such as those with a hyphen."""
        return tuple(tuple(words) for words in map(words_of, self.banned) if len(words) > 1)

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
        if bad_character(text, ascii_only=self.ascii is not False) is not None:
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
        return self.broken(text, tokens) is None

    def broken(self, text: str, tokens: int | None = None) -> str | None:
        """The first rule for every text that a text breaks, in words; None if it keeps them all.

        Args:
            text: the whole text.
            tokens: how many it has under the primary, where ``max_tokens`` is to be checked.
        """
        if (letter := bad_character(text, ascii_only=self.ascii is True)) is not None:
            return f"it has {show_character(letter)}"
        # Texts grow at the end, so that what stands before the last blank has mostly been looked at.
        border = max(text.rfind(" "), 0)
        size = self.no_repeat_ngram
        head, new = _beginning(text[:border], size), words_of(text[border:])
        words = [*head.words, *new]
        if self.no_repeated_word and (head.echoes or find_echo([*head.words[-1:], *new]) is not None):
            return f"it has {find_echo(words)!r} twice in a row (no_repeated_word)"
        if size:
            runs = runs_of([*head.words[max(len(head.words) - size + 1, 0) :], *new], size)
            if head.repeats or len(set(runs)) < len(runs) or not head.runs.isdisjoint(runs):
                return f"it has {' '.join(find_repeat(words, size) or ())!r} twice (no_repeat_ngram {size})"
        if self._banned_words and not self._banned_words.isdisjoint(words):
            return f"it has the banned word {next(word for word in words if word in self._banned_words)!r}"
        for run in self._banned_runs:
            if run in runs_of(words, len(run)):
                return f"it has the banned phrase {' '.join(run)!r}"
        for pattern in self._banned_expressions:
            if pattern.search(text):
                return f"it matches the banned pattern {pattern.pattern!r}"
        if self.max_words is not None and len(words) > self.max_words:
            return f"it has {len(words)} words (max_words {self.max_words})"
        if self.max_tokens is not None and tokens is not None and tokens > self.max_tokens:
            return f"it has {tokens} tokens (max_tokens {self.max_tokens})"
        if self.vocabulary is None or not words:
            return None
        for place, word in enumerate(words, start=1):
            known = self._vocabulary_words if place < len(words) else self._vocabulary_beginnings
            if word not in known:
                return f"{word!r} is not in the vocabulary"
        return None

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


_LISTS = ("banned", "banned_patterns", "required", "vocabulary")
_SWITCHES = ("ascii", "no_repeated_word", "round_trip", "ellipsis")
_MAY_BE_NONE = ("ascii", "vocabulary", "max_words", "max_tokens")


def _checked(name: str, value: Any) -> Any:
    """A field's value, lists as tuples, since a frozen object is to be hashable.

    Raises:
        ConfigError: if it is of another type.
    """
    if value is None and name in _MAY_BE_NONE:
        return None
    if name in _LISTS:
        if isinstance(value, str):
            raise ConfigError(f"{name}: {value!r} is one string; give a list, e.g. [{value!r}]")
        if not isinstance(value, Iterable):
            raise ConfigError(f"{name}: {value!r} is not a list; give a list of strings")
        entries = sorted(value) if isinstance(value, Set) else list(value)
        for entry in entries:
            if not isinstance(entry, str):
                raise ConfigError(f"{name}: {entry!r} is not a string; give strings")
        return tuple(entries)
    if name in _SWITCHES:
        if not isinstance(value, bool):
            raise ConfigError(f"{name}: {value!r} is neither true nor false; give one")
    elif isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name}: {value!r} is not a whole number; give one")
    elif value < 0 and name == "no_repeat_ngram":
        raise ConfigError(f"{name}: {value} must be at least 0")
    return value


def _progress(words: Sequence[str], wanted: Sequence[str], growing: bool) -> int:
    """The progress of one phrase; ``growing`` if the last word may continue."""
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


_CONTEXTS = ("{}", " {} ", "A {}", "A {}.", "A {} is here.", "{} is here.")
"""Where a required phrase may stand: a pattern that matches in all of them matches wherever it stands."""

_NEUTRAL = "Qxjq"
"""Stands for a phrase that no pattern means."""


def _check_rules(rules: Constraints) -> None:
    """Refuse rules that no text can keep together, before a search looks for one in vain."""
    _check_lengths(rules)
    for phrase in rules.banned:
        if not words_of(phrase):
            raise ConfigError(f"banned: {phrase!r} has no word; give words, or banned_patterns")
    _check_vocabulary(rules)
    for phrase in rules.required:
        _check_required(rules, phrase)
    # Words may be shared by phrases, but each must be there as often as the phrase that has it most.
    needed: Counter[str] = Counter()
    for phrase in rules.required:
        needed |= Counter(words_of(phrase))
    for kind in ("words", "tokens"):  # Every word has a token at least.
        most = getattr(rules, f"max_{kind}")
        if most is not None and needed.total() > most:
            raise ConfigError(
                f"required: {needed.total()} words do not fit into max_{kind} {most}; raise it or remove some"
            )


def _check_lengths(rules: Constraints) -> None:
    for kind in ("words", "tokens"):
        low, high = getattr(rules, f"min_{kind}"), getattr(rules, f"max_{kind}")
        if low < 0 or (high is not None and high < max(low, 1)):
            raise ConfigError(f"min_{kind} {low} and max_{kind} {high} leave no text; change either")
    if rules.max_tokens is not None and rules.min_words > rules.max_tokens:
        raise ConfigError(
            f"min_words {rules.min_words} and max_tokens {rules.max_tokens} leave no text; change either"
        )


def _check_vocabulary(rules: Constraints) -> None:
    if rules.vocabulary is None:
        return
    if not any(words_of(entry) for entry in rules.vocabulary):
        raise ConfigError("vocabulary: has no word, so no text is allowed; give words, or none for all")
    left = {word for entry in rules.vocabulary for word in words_of(entry)}
    for word in sorted(left):
        _check_characters(rules, word, "vocabulary")
    left -= {word for (word,) in (words_of(one) for one in rules.banned if len(words_of(one)) == 1)}
    if not left:
        raise ConfigError("vocabulary: all its words are banned; remove some from one of the two")
    if len(left) == 1 and rules.no_repeated_word and rules.min_words > 1:
        raise ConfigError(
            f"min_words: {rules.min_words} words from a vocabulary of one, {min(left)!r}, repeat a word; "
            "set no_repeated_word to false"
        )


def _check_required(rules: Constraints, phrase: str) -> None:
    words = words_of(phrase)
    if not words:
        raise ConfigError(f"required: {phrase!r} has no word; give words")
    _check_characters(rules, phrase, "required")
    for other in rules.banned:
        if _contains(words, words_of(other)):
            raise ConfigError(f"required: {phrase!r} is banned too; remove it from one of the two")
    for pattern in rules.banned_patterns:
        if _always_matches(pattern, phrase):
            raise ConfigError(f"required: {phrase!r} matches the banned pattern {pattern!r}; change either")
    if rules.vocabulary is not None:
        allowed = {word for entry in rules.vocabulary for word in words_of(entry)}
        if not set(words) <= allowed:
            raise ConfigError(f"required: {phrase!r} is not in the vocabulary; add it there")
    if rules.no_repeated_word and (word := find_echo(words)) is not None:
        raise ConfigError(f"required: {phrase!r} has {word!r} twice in a row; set no_repeated_word to false")
    if rules.no_repeat_ngram and (run := find_repeat(words, rules.no_repeat_ngram)) is not None:
        raise ConfigError(
            f"required: {phrase!r} has {' '.join(run)!r} twice; lower or raise no_repeat_ngram "
            f"({rules.no_repeat_ngram}), or set it to 0"
        )


def _always_matches(pattern: str, phrase: str) -> bool:
    """Whether a pattern matches a phrase wherever it stands, and because of it."""
    spelled = {" ".join(phrase.split()), phrase.lower(), phrase.upper(), phrase.capitalize()}
    contexts = [one for one in _CONTEXTS if re.search(pattern, one.format(_NEUTRAL)) is None]
    texts = [context.format(one) for context in contexts for one in spelled]
    return bool(texts) and all(re.search(pattern, text) is not None for text in texts)


def _check_characters(rules: Constraints, text: str, field: str) -> None:
    found = bad_character(text, ascii_only=rules.ascii is not False)
    if found is None:
        return
    remedy = (
        "set ascii to false" if not found.isascii() and bad_character(found, False) is None else "drop it"
    )
    raise ConfigError(
        f"{field}: {text!r} has {show_character(found)}, which the constraints forbid; {remedy}"
    )

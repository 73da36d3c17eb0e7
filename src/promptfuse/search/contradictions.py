"""Rules for texts that no text can keep together; found before a search looks for one in vain."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptfuse.errors import ConfigError
from promptfuse.search.characters import bad_character, show_character
from promptfuse.search.words import find_echo, find_repeat, words_of

if TYPE_CHECKING:
    from promptfuse.search.constraints import Constraints

_CONTEXTS = ("{}", " {} ", "A {}", "A {}.", "A {} is here.", "{} is here.")
"""Where a required phrase may stand: a pattern that matches in all of them matches wherever it stands."""

_NEUTRAL = "Qxjq"
"""Stands for a phrase that no pattern means."""


def check_rules(rules: Constraints) -> None:
    """Refuse rules that contradict each other.

    Raises:
        ConfigError: naming the first that do, and what to change.
    """
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
                f"required: {needed.total()} words do not fit into max_{kind} {most}; raise it or drop some"
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
        raise ConfigError("vocabulary: all its words are banned; drop some from either")
    if len(left) == 1 and rules.no_repeated_word and rules.min_words > 1:
        raise ConfigError(
            f"min_words: {rules.min_words} words out of one, {min(left)!r}, are an echo; "
            "set no_repeated_word to false"
        )


def _check_required(rules: Constraints, phrase: str) -> None:
    words = words_of(phrase)
    if not words:
        raise ConfigError(f"required: {phrase!r} has no word; give words")
    _check_characters(rules, phrase, "required")
    for other in rules.banned:
        if _contains(words, words_of(other)):
            raise ConfigError(f"required: {phrase!r} is banned too; drop it from either")
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
    raise ConfigError(f"{field}: {text!r} has {show_character(found)}, which the rules forbid; {remedy}")


def _contains(words: Sequence[str], wanted: Sequence[str]) -> bool:
    size = len(wanted)
    return any(list(words[start : start + size]) == list(wanted) for start in range(len(words) - size + 1))

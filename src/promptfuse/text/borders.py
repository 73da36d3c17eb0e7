"""Where one word ends and the next begins when strings are joined.

A text that follows another string begins with a new word. Whether this needs a space depends on the string
before it: ``Caption:`` needs one; ``He said "``, ``black-``, a line break and a script without spaces do not.
"""

from __future__ import annotations

import unicodedata

_NO_BLANKS = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x2E80, 0x312F),  # radicals, marks of Chinese and Japanese, kana, bopomofo
    (0x3190, 0xA4CF),  # kana and Chinese characters, Yi
    (0xA9E0, 0xA9FF),  # Burmese
    (0xAA60, 0xAA7F),  # Burmese
    (0xF900, 0xFAFF),  # Chinese characters
    (0xFE30, 0xFE4F),  # marks of vertical text
    (0xFF00, 0xFF9F),  # wide marks and letters, narrow kana
    (0x1AFF0, 0x1B16F),  # kana
    (0x20000, 0x3FFFF),  # Chinese characters
)
"""Code points of scripts without spaces between words. Korean has spaces."""

_JOINING = frozenset("/\\_@#")
"""Characters after which a word needs no space, if there is none before them."""


def needs_blank(before: str) -> bool:
    """Whether a word that follows a string needs a space before it."""
    if not before or before[-1].isspace() or _without_blanks(before[-1]) or _opens(before):
        return False
    if before[-1] in "-\u2010\u2011":  # After a space it is a dash.
        return before[-2:-1].isspace()
    return before[-1] not in _JOINING


def starts_word(before: str, after: str) -> bool:
    """Whether a string begins a new word when it follows another string.

    Args:
        before: the text so far; True if it is empty.
        after: what follows it. A single space counts, since a word may follow it.
    """
    if not before or not after:
        return True
    word = after.lstrip()
    if len(after) - len(word) > 1:
        return False
    if after[0].isspace():
        return not (_opens(before) or before[-1].isspace()) and (not word or _begins(word[0]))
    return _begins(word[0]) and (not needs_blank(before) or _without_blanks(word[0]))


def begins_text(text: str) -> bool:
    """Whether a text begins with a word, maybe in quotes or brackets: not with a comma, a dash or ``'s``."""
    word = text.lstrip()
    return bool(word) and _begins(word[0]) and not (word[0] == "'" and word[1:2].isalpha())


def glues(before: str, after: str) -> bool:
    """Whether a string continues the last word of the string before it."""
    first = after[:1]
    return (first.isalnum() or _is_mark(first)) and needs_blank(before) and not _without_blanks(first)


def _opens(before: str) -> bool:
    """Whether a string ends with an opening bracket or quote, or a currency, which sticks to a number."""
    last, earlier = before[-1:], before[-2:-1]
    if last in ('"', "'"):  # Opening where an opening one stands.
        return not earlier or earlier.isspace() or unicodedata.category(earlier) in ("Ps", "Pi", "Pd")
    return last != "" and unicodedata.category(last) in ("Ps", "Pi", "Sc")


def _begins(character: str) -> bool:
    """Whether a word, or a bracket or quote around one, may begin with a character."""
    kind = unicodedata.category(character)
    return kind[0] in "LN" or kind in ("Ps", "Pi", "Sc", "So") or character in "\"'#@"


def _is_mark(character: str) -> bool:
    """Whether a character is an accent or vowel sign on the one before it."""
    return character != "" and unicodedata.category(character)[0] == "M"


def _without_blanks(character: str) -> bool:
    """Whether a character belongs to a script without spaces between words."""
    code = ord(character)
    return any(first <= code <= last for first, last in _NO_BLANKS)

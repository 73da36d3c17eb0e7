"""Where one word ends and the next begins, for strings that are put behind each other.

A text that stands behind something else begins as a text does: with a word of its own. Where that takes
a blank depends on what stands before: ``Caption:`` asks for one, ``He said "``, ``black-``, a line break
and a script without blanks do not.
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
"""Code points of scripts that put no blank between words. Korean does."""

_JOINING = frozenset("/\\_@#")
"""Signs that a word follows without a blank, if there is none before them."""


def needs_blank(before: str) -> bool:
    """Whether a blank belongs between a string and a word that is put behind it."""
    if not before or before[-1].isspace() or _without_blanks(before[-1]) or _opens(before):
        return False
    if before[-1] in "-\u2010\u2011":  # Between blanks it is a dash.
        return before[-2:-1].isspace()
    return before[-1] not in _JOINING


def starts_word(before: str, behind: str) -> bool:
    """Whether a string begins with a word of its own where it stands behind another one.

    A blank alone counts: a word may follow it.
    """
    if not before or not behind:
        return True
    word = behind.lstrip()
    if len(behind) - len(word) > 1:
        return False
    if behind[0].isspace():
        return not (_opens(before) or before[-1].isspace()) and (not word or _begins(word[0]))
    return _begins(word[0]) and (not needs_blank(before) or _without_blanks(word[0]))


def glues(before: str, behind: str) -> bool:
    """Whether a string goes on with the last word of the one that it stands behind."""
    first = behind[:1]
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
    """Whether a character is of a script that puts no blank between words."""
    code = ord(character)
    return any(first <= code <= last for first, last in _NO_BLANKS)

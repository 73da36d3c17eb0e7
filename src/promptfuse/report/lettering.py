"""How much room letters take, whatever font a reader's browser has for them."""

from __future__ import annotations

import unicodedata

_NARROW = frozenset("iljI|!'.,:;`")
_SLIM = frozenset('ftr()[]{}-/\\" ')
_BROAD = frozenset("mwMW@%&—…✓−+=<>~OQGDHNU")
_BOLD = 1.13
"""Bold letters take this much more."""


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Pixels that a text takes at most, in the broad sans-serif fonts that browsers fall back to.

    Args:
        text: on one line.
        size: of its letters, in pixels.
        bold: whether they are bold.
    """
    return size * (_BOLD if bold else 1.0) * sum(_width(letter) for letter in text)


def shorten(text: str, room: float, size: float, bold: bool = False) -> str:
    """A text that takes no more than so many pixels: its beginning and an ellipsis if it is longer."""
    if text_width(text, size, bold) <= room:
        return text
    kept = text
    while kept and text_width(kept + "…", size, bold) > room:
        kept = kept[:-1]
    return kept.rstrip() + "…"


def _width(letter: str) -> float:
    """Of a letter, by its size: that of DejaVu Sans or a little more."""
    if letter in _NARROW:
        return 0.35
    if letter in _SLIM:
        return 0.46
    if letter in _BROAD:
        return 1.0
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Cf"):
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF" or ord(letter) > 0xFFFF:
        return 1.3  # Emoji are the broadest.
    if letter.isupper():
        return 0.75
    return 0.65 if letter.isascii() or letter.islower() else 0.85

"""Characters that may stand in a text."""

from __future__ import annotations

import unicodedata


def bad_character(text: str, ascii_only: bool) -> str | None:
    """The first character of a text that may not stand there; None if there is none.

    Control and format characters (line breaks, zero-width joiners, marks of writing direction), private and
    unassigned ones, surrogates, and line and paragraph separators never may. Blanks of other widths may,
    unless all is to be ASCII.

    Args:
        text: any text.
        ascii_only: whether only printable ASCII may.
    """
    if text.isprintable() and (not ascii_only or text.isascii()):
        return None
    return next((letter for letter in text if not _is_good(letter, ascii_only)), None)


def _is_good(letter: str, ascii_only: bool) -> bool:
    if ascii_only:
        return letter.isascii() and letter.isprintable()
    # Of what is not printable, spaces (Zs) are all that is good.
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def show_character(letter: str) -> str:
    """A character as an error message names it."""
    if letter == "\n" or letter == "\r":
        return "a line break"
    if letter == "\t":
        return "a tab"
    name = unicodedata.name(letter, f"U+{ord(letter):04X}").lower()
    if bad_character(letter, ascii_only=False) is not None:
        return f"a control or format character ({name if name[:2] != 'u+' else name.upper()})"
    return f"{letter!r}, which is not ASCII"

"""What an edit changed in a text, and where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from promptfuse.report.lettering import text_width

_LONG_WORD = 10
"""A text without blanks that has more letters is compared letter by letter."""


class Piece(NamedTuple):
    """A part of a text with the blank before it; ``new`` if it was changed, a removed part with a minus."""

    text: str
    new: bool = False


def changed(parent: str, text: str) -> str:
    """What a text has that its parent lacks, in few words.

    A piece that is added within the last word begins with a hyphen; removed words begin with a minus.
    """
    if text == parent:
        return "="
    if parent and text.startswith(parent):
        added = text[len(parent) :]
        return added.strip() if added[0].isspace() or not added[0].isalnum() else f"-{added}"
    old, new = parent.split(), text.split()
    parts = [
        "−" + " ".join(old[first:last]) if operation == "delete" else " ".join(new[start:end])
        for operation, first, last, start, end in _compare(old, new)
        if operation != "equal"
    ]
    return " … ".join(parts) or text.strip()


def compared(parent: str, text: str, gone: bool = True) -> list[Piece]:
    """A text in pieces, those that its parent lacks marked as new.

    Args:
        parent: what the text was made from.
        text: the text.
        gone: whether what was removed from the parent is shown, with a minus.
    """
    if parent and text.startswith(parent) and text != parent:
        return [*(Piece(word) for word in _words(parent)), Piece(text[len(parent) :], True)]
    old, new = _words(parent), _words(text)
    pieces: list[Piece] = []
    pairs = _compare([word.strip() for word in old], [word.strip() for word in new])
    for operation, first, last, start, end in pairs:
        if operation == "delete" and gone:
            lost = "".join(old[first:last])
            blank = " " if pieces and lost[:1].isspace() else ""
            pieces.append(Piece(f"{blank}−{lost.strip()}", True))
        pieces += [Piece(word, operation != "equal") for word in new[start:end]]
    return pieces


def around(pieces: Sequence[Piece], room: float, size: float) -> list[Piece]:
    """As many pieces as fit around the first change, with an ellipsis for what is left out.

    Args:
        pieces: of a text, from `compared`; without a new one its beginning is shown.
        room: in pixels.
        size: of the letters, in pixels.
    """

    def fits(start: int, end: int) -> bool:
        return start >= 0 and end <= len(pieces) and _width(_window(pieces, start, end), size) <= room

    start = next((place for place, piece in enumerate(pieces) if piece.new), 0)
    end = start + 1
    if fits(0, len(pieces)):
        return list(pieces)
    if not fits(start, end):
        return _cut(pieces, start, room, size)
    while end < len(pieces) and pieces[end].new and fits(start, end + 1):
        end += 1
    while (before := fits(start - 1, end)) or fits(start, end + 1):
        # What comes before tells more of where a change is, so it goes first.
        start -= before
        end += fits(start, end + 1)
    return _window(pieces, start, end)


def _words(text: str) -> list[str]:
    """The words with the blanks before them; the letters of a long text without blanks."""
    found = re.findall(r"\s*\S+", text)
    return list(text) if len(found) == 1 and len(text) > _LONG_WORD else found


def _compare(old: Sequence[str], new: Sequence[str]) -> list[tuple[str, int, int, int, int]]:
    return list(SequenceMatcher(None, old, new, autojunk=False).get_opcodes())


def _window(pieces: Sequence[Piece], start: int, end: int) -> list[Piece]:
    found = list(pieces[start:end])
    if start > 0:
        found[0] = Piece("…" + found[0].text.lstrip(), found[0].new)
    return [*found, Piece("…")] if end < len(pieces) else found


def _width(pieces: Sequence[Piece], size: float) -> float:
    return sum(text_width(piece.text, size, piece.new) for piece in pieces)


def _cut(pieces: Sequence[Piece], start: int, room: float, size: float) -> list[Piece]:
    """One piece alone, which is too long by itself."""
    before = "…" if start > 0 else ""
    text = pieces[start].text.lstrip()
    while text and text_width(f"{before}{text}…", size, pieces[start].new) > room:
        text = text[:-1]
    return [Piece(f"{before}{text}…", pieces[start].new)] if text else [Piece("…")]

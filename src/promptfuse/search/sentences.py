"""Where a sentence ends: not at "Mr.", not between "45." and "2"."""

from __future__ import annotations

import re
from typing import Literal

Ending = Literal["sure", "open", "ellipsis", "going", "bare"]
"""What the end of a text is to its sentence: ``sure`` ends it; ``open`` may end it or may not ("45.",
"5 p.m.", "the U.S."), which only its writer knows; ``ellipsis`` trails off; ``going`` must continue ("Mr.");
``bare`` has no mark of an end."""

SENTENCE_ENDS = (".", "!", "?")
"""The marks that are proposed to end a sentence."""

_MARKS = (
    "!?\uff01\uff1f\u3002\uff61\u203c\u203d\u2047\u2048\u2049\u061f\u06d4\u0964\u0965\u104b\u1362\u1367\u17d4"
    "\u0589"
)
"""Marks that end a sentence whatever stands before them: those of Latin, Chinese and Japanese, Arabic, Urdu,
Devanagari, Burmese, Ethiopic, Khmer and Armenian texts."""

_STOPS = ".\uff0e"

_CLOSING = "\"'\u201d\u2019\u00bb\u203a)]}\u300d\u300f\uff09\u3011\u300b\u3009\uff3d\uff5d\uff02\uff07"
"""What may follow the mark: closing quotes and brackets."""

_OPENING = "\"'\u201c\u2018\u00ab\u2039([{\u300c\u300e\uff08\u3010\u300a\u3008\u201e\u201a\u00bf\u00a1"

_PAIRS = ("()", "[]", "{}", "\u201c\u201d", "\u00ab\u00bb", "\u300c\u300d", "\u300e\u300f", "\uff08\uff09")

_ELLIPSIS = re.compile(r"(?:\u2026|[.\uff0e]\s*[.\uff0e])$")

_NUMBER = re.compile(r"[^\w\s]*\d[\d,.:]*")

_LETTERS = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
"""Single letters with stops between them, as in "e.g." and "U.S."."""

_FOLLOWED = frozenset("mr mrs ms mx messrs mme mlle dr drs prof st vs viz approx incl bzw bspw".split())
"""Abbreviations that something has to follow, in any case; in German, French and English texts."""

_TITLES = frozenset(
    "Rev Hon Gen Brig Col Maj Capt Cpt Cmdr Lt Sgt Cpl Pvt Adm Gov Sen Rep Supt Msgr Sr Sra Mt Pres Fr "
    "Hr".split()
)
"""Those that are words of their own where they have no capital."""

_MAY_END = frozenset(
    "jr etc inc ltd co corp bros ave blvd rd ft hwy no nos nr vol vols fig figs eq sec ch tel univ assoc "
    "p pp al dept est ca cf ed eds max min "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri sat sun".split()
)
"""Abbreviations that may end a sentence, or stand within it."""

_WORDS = frozenset("no p al ed co min max mar sat sun wed fig figs sec ch tel est rd ft inc".split())
"""Those that are words of their own, and count only with a capital or after a number."""


def sentence_ending(text: str) -> Ending:
    """What the end of a text is to its last sentence.

    A mark of the end counts through closing quotes and brackets. A full stop is no end after an abbreviation
    that something must follow ("Mr.", "e.g.") and after the initial of a name ("John F."); after a number,
    which may continue as a decimal one, and after other abbreviations ("a.m.", "U.S.", "etc.") it may be one,
    as any mark may be within a quote or a bracket that is still open.

    Args:
        text: any text; blanks at its end do not matter.
    """
    bare = text.rstrip().rstrip(_CLOSING).rstrip()
    if not any(letter.isalnum() for letter in bare):
        return "bare"
    if _ELLIPSIS.search(bare):
        return "ellipsis"
    if bare[-1] in _MARKS:
        return "open" if _is_open(text) else "sure"
    if bare[-1] not in _STOPS:
        return "bare"
    found = _after_stop(bare[:-1])
    return "open" if found == "sure" and _is_open(text) else found


def _after_stop(before: str) -> Ending:
    """What a full stop after a text is."""
    words = before.split()
    if not words or before[-1].isspace():  # A stop that stands by itself, as in tokenised texts.
        return "sure"
    word = words[-1].lstrip(_OPENING)
    previous = words[-2].lstrip(_OPENING) if len(words) > 1 else ""
    small = word.casefold()
    if _NUMBER.fullmatch(word):
        # "1." begins a list; what has a point already is a whole number.
        return "sure" if "." in word else "open" if previous else "going"
    if small in ("st", "mt") and previous[:1].isupper():
        return "open"  # "Main St." is a street, "at St." is not.
    if small in _FOLLOWED or word in _TITLES:
        return "going"
    if _LETTERS.fullmatch(word):
        return "going" if small in ("e.g", "i.e") else "open"
    if len(word) == 1 and word.isupper() and word != "I":
        return "going" if previous[:1].isupper() or not previous else "open"
    if small in ("ph.d", "m.sc", "b.sc"):
        return "open"
    if small in _MAY_END and (small not in _WORDS or word[:1].isupper() or previous[-1:].isdigit()):
        return "open"
    return "sure"


def _is_open(text: str) -> bool:
    """Whether a quote or a bracket in a text has not been closed."""
    if text.count('"') % 2:
        return True
    return any(text.count(pair[0]) > text.count(pair[1]) for pair in _PAIRS)

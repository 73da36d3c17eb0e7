"""Which texts a proposal may make."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Constraints:
    """Rules that every kept text obeys.

    That the primary's tokenizer reads a text back to the very ids that made it is always required.

    Attributes:
        ascii: only printable ASCII characters.
        no_repeat_ngram: no run of this many words twice in one text; 0 allows repeats.
        no_echo: no word directly behind itself.
        banned: words that must not occur, whatever their case.
    """

    ascii: bool = True
    no_repeat_ngram: int = 2
    no_echo: bool = True
    banned: tuple[str, ...] = ()

    def allows_token(self, text: str) -> bool:
        """Whether a token's text can be part of an allowed text."""
        if "\n" in text or "\r" in text or "\t" in text:
            return False
        return not self.ascii or (text.isascii() and text.isprintable())

    def allows(self, text: str) -> bool:
        """Whether the whole text keeps the rules."""
        words = re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.casefold())
        if self.no_echo and any(first == second for first, second in pairwise(words)):
            return False
        if size := self.no_repeat_ngram:
            runs = list(zip(*(words[offset:] for offset in range(size)), strict=False))
            if len(runs) != len(set(runs)):
                return False
        return not any(word in self.banned for word in words) if self.banned else True

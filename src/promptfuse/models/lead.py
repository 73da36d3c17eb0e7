"""The tokens of a text that follows a fixed string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from transformers import PreTrainedTokenizerFast

Ids = tuple[int, ...]
Encode = Callable[[Sequence[str]], Sequence[Ids]]
Decode = Callable[[Sequence[Sequence[int]]], list[str]]

_PROBE = "A"
"""What is put after the string to see which tokens are its own."""

_ANCHOR = 16
"""How many of the string's tokens are put before a text to decode it."""


class Lead:
    """A string before texts, with tokens that stay the same whatever follows.

    Args:
        text: the string; empty for none.
        gap: put between it and a text that does not begin with a blank.
        tokenizer: makes the tokens.
        decode: gives the strings of rows of tokens.
    """

    def __init__(self, text: str, gap: str, tokenizer: PreTrainedTokenizerFast, decode: Decode) -> None:
        self.text = text
        self.gap = gap
        self._tokenizer = tokenizer
        self._decode = decode

    def joined(self, text: str) -> str:
        """The string with a text after it."""
        return f"{self.text}{'' if text[:1].isspace() else self.gap}{text}"

    def _encoded(self, text: str) -> tuple[Ids, list[tuple[int, int]]]:
        """Tokens of a string by itself, and where they lie."""
        encoded = self._tokenizer(
            [text], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return tuple(encoded["input_ids"][0]), list(encoded["offset_mapping"][0])

    @cached_property
    def ids(self) -> Ids:
        """The string's own tokens; blanks at its end belong to the first word after it."""
        bare = self.text.rstrip(" ")
        if not bare:
            return ()
        ids, spans = self._encoded(self.joined(_PROBE))
        own = next((index for index, (_, end) in enumerate(spans) if end > len(bare)), len(ids))
        if own and spans[own - 1][1] == len(bare):
            return ids[:own]
        # Where line breaks are read as blanks, the first word brings those along as well.
        if own < len(ids) and own and spans[own - 1][1] >= len(bare.rstrip()):
            return ids[:own]
        return self._encoded(bare)[0]

    @cached_property
    def _before(self) -> str:
        """The string of the tokens that are put before a text to decode it."""
        return self._decode([self.ids[-_ANCHOR:]])[0] if self.ids else ""

    @cached_property
    def pending(self) -> str:
        """What the first word brings with it that is no part of a text: blanks that have no token yet."""
        if not self.text:
            return ""
        (probe,) = self.encode([_PROBE], lambda texts: [self._encoded(text)[0] for text in texts])
        (found,) = self._decode([[*self.ids[-_ANCHOR:], *probe]])
        return found[len(self._before) : len(found) - len(_PROBE)]

    def encode(self, texts: Sequence[str], encode: Encode) -> list[Ids]:
        """Tokens of texts after the string, without the string's.

        Those that a text has after the string; where the string's tokens would not stay what they are,
        those that it has by itself.

        Args:
            texts: the texts.
            encode: gives the tokens of strings by themselves.
        """
        if not self.text:
            return [tuple(ids) for ids in encode(texts)]
        own, length = self.ids, len(self.ids)
        found: dict[str, Ids | None] = dict.fromkeys(texts)
        filled = [text for text in found if text]
        for text, ids in zip(filled, encode([self.joined(text) for text in filled]), strict=True):
            found[text] = tuple(ids[length:]) if ids[:length] == own else None
        torn = [text for text in filled if found[text] is None]
        found.update(zip(torn, encode(torn) if torn else (), strict=True))
        return [found[text] or () for text in texts]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where the tokens of ``encode`` lie in a text."""
        whole = self.joined(text)
        ids, spans = self._encoded(whole)
        length, shift = len(self.ids), len(whole) - len(text)
        if ids[:length] != self.ids:
            return self._encoded(text)[1]
        return [(max(start - shift, 0), max(end - shift, 0)) for start, end in spans[length:]]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """What tokens read as after the string."""
        if not self.text:
            return self._decode(rows)
        anchor = self.ids[-_ANCHOR:]
        found = []
        for row, text in zip(rows, self._decode([[*anchor, *row] for row in rows]), strict=True):
            if not text.startswith(self._before):  # The string's end reads otherwise after it.
                (text,) = self._decode([row])
                found.append(text)
            else:
                found.append(text[len(self._before) :].removeprefix(self.pending))
        return found

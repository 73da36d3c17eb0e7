"""Common segments of a text for several tokenizers.

A *segment* is a maximal run of non-blank characters together with the whitespace before it; whitespace at
the end of the text is its own segment. A border between two segments is *common* if no tokenizer has a token
across it. If one does (a super-word tokenizer, say), the neighbours are merged for all. So every token
belongs to exactly one segment, except special tokens, which belong to none.

Everything comes from the character offsets of fast tokenizers. Pieces are never decoded and compared: a
byte-level token may be part of a character, and a normalising tokenizer does not give the text back. There
are no borders in the few places where offsets are known to be wrong (``promptfuse.text.offsets``).

Source: Williams and Kolter, arXiv 2408.04816, section 3.1, where segments are the "words".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from promptfuse.text.offsets import (
    Encoding,
    FastTokenizer,
    call,
    encode_text,
    encode_texts,
    loses,
    spell_bytes,
)

__all__ = [
    "EncodedText",
    "FastTokenizer",
    "LastSegmentEncoder",
    "Segmentation",
    "encode_words",
    "segment_text",
    "special_ids",
    "spell_bytes",
]


@dataclass(frozen=True)
class Segmentation:
    """A text cut into the segments that several tokenizers share.

    Attributes:
        text: the text.
        segments: for each segment its half-open span of characters; together they cover the text.
        ids: for each tokenizer its ids of the text, with special tokens.
        token_spans: for each tokenizer and each segment the half-open range of indices into ``ids``; an
            empty one where the tokenizer has no token for the segment.
    """

    text: str
    segments: tuple[tuple[int, int], ...]
    ids: tuple[tuple[int, ...], ...]
    token_spans: tuple[tuple[tuple[int, int], ...], ...]

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def strings(self) -> tuple[str, ...]:
        """The segments as strings, each with its blanks."""
        return tuple(self.text[start:stop] for start, stop in self.segments)


def segment_text(text: str, tokenizers: Sequence[FastTokenizer]) -> Segmentation:
    """Cut a text into the segments that all tokenizers share.

    Args:
        text: any text, empty and blank ones included.
        tokenizers: any number of fast tokenizers.

    Raises:
        ModelError: if a tokenizer has no fast version, which gives the offsets.
    """
    encodings = [encode_text(tokenizer, text) for tokenizer in tokenizers]
    borders = [
        index for index in range(1, len(text)) if text[index].isspace() and not text[index - 1].isspace()
    ]
    cuts = [[encoding.cut(border) for border in borders] for encoding in encodings]
    common = [k for k in range(len(borders)) if all(cut[k] is not None for cut in cuts)]
    edges = [0, *(borders[k] for k in common), len(text)]
    segments = tuple(pairwise(edges)) if text else ()
    token_spans = []
    for encoding, cut in zip(encodings, cuts, strict=True):
        inner = [index for k in common if (index := cut[k]) is not None]
        token_spans.append(tuple(pairwise([encoding.start, *inner, encoding.stop])) if text else ())
    return Segmentation(text, segments, tuple(encoding.ids for encoding in encodings), tuple(token_spans))


def special_ids(tokenizer: FastTokenizer) -> frozenset[int]:
    """Ids that do not represent text: special tokens, and added tokens that look like marks.

    A tokenizer lists only special tokens that have a role (begin, end, padding). Marks of chats and images,
    such as ``<|im_start|>`` or ``<start_of_image>``, are added tokens.
    """
    found = set(getattr(tokenizer, "all_special_ids", ()))
    if tokenizer.unk_token_id is not None:
        found.add(tokenizer.unk_token_id)
    for index, token in tokenizer.backend_tokenizer.get_added_tokens_decoder().items():
        if token.special or _MARK.fullmatch(token.content.strip()):
            found.add(index)
    return frozenset(found)


_MARK = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")
"""What marks look like."""


def encode_words(
    tokenizer: FastTokenizer, words: Sequence[str], anchor: str = "a"
) -> list[tuple[int, ...] | None]:
    """Ids of words inside a text, after another word.

    Encoding a word by itself gives other ids: some tokenizers put a space before the first word of a text,
    and would then see two spaces.

    Args:
        tokenizer: a fast tokenizer.
        words: strings that begin with a space, such as ``" dog"``.
        anchor: the word before them.

    Returns:
        The ids of each word; None if the tokenizer has no separate token for it, or one that reaches into
        the anchor.
    """
    found: list[tuple[int, ...] | None] = []
    border = len(anchor)
    for first in range(0, len(words), _BATCH):
        texts = [anchor + word for word in words[first : first + _BATCH]]
        encoded = call(tokenizer, texts, add_special_tokens=False)
        for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            index = len(ids)
            while index and offsets[index - 1][0] >= border:
                index -= 1
            straddles = any(stop > border for _, stop in offsets[:index]) or loses(tokenizer, text)
            found.append(None if straddles else tuple(ids[index:]) or None)
    return found


class LastSegmentEncoder:
    """Encodes texts that grow at the end, as those of a left-to-right search do.

    A text is its head and its last segment. The ids of both are cached, so a beam that is extended by a
    known word costs two look-ups. A text with an unknown part is encoded in full and then cut. This is also
    the check: if a tokenizer has tokens across a border, or encodes a part differently than before, it is
    not word-compositional, and every later text is encoded in full. If the tokenizer splits texts at spaces
    before it looks for tokens, a new last segment is encoded after its neighbour alone.

    Only borders that every known normaliser respects are used: a space (U+0020) after a letter, a digit or
    an ASCII sign. Texts with unknown or added tokens are never assembled from parts, because these may fuse
    with their neighbours.

    Args:
        tokenizer: a fast tokenizer.
        cache_size: the most heads, and the most last segments, to cache.
        special: whether to add the tokenizer's special tokens.

    Raises:
        ValueError: if ``cache_size`` is not positive.

    Attributes:
        compositional: whether the tokenizer has so far looked word-compositional.
        full_encodings: how many texts were encoded in full.
    """

    def __init__(self, tokenizer: FastTokenizer, cache_size: int = 65536, special: bool = True) -> None:
        if cache_size < 1:
            raise ValueError(f"cache_size must be at least 1, got {cache_size}")
        self.tokenizer = tokenizer
        self.special = special
        self.full_encodings = 0
        self.compositional = not any(_crosses_a_space(token) for token in tokenizer.get_vocab())
        self._splits = _splits_at_spaces(tokenizer)
        self._loose = set(tokenizer.get_added_vocab().values())
        if tokenizer.unk_token_id is not None:
            self._loose.add(tokenizer.unk_token_id)
        (sample,) = encode_texts(tokenizer, ["a"], special)
        self._frame = (sample.ids[: sample.start], sample.ids[sample.stop :])
        self._heads, self._tails = _Recent(cache_size), _Recent(cache_size)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of the text with special tokens, equal to those of a full encoding."""
        return self.encode_many([text])[0].ids

    def encode_many(self, texts: Sequence[str]) -> list[EncodedText]:
        """Ids of texts, equal to those of full encodings; full encodings are made in one batch."""
        found = {text: self._recall(text) for text in texts}
        unknown = [text for text, known in found.items() if known is None]
        if unknown:
            # Of texts that lack the same part one is enough: the others are then assembled.
            lacking: set[str] = set()
            first = []
            for text in unknown:
                parts = self._lacks(text)
                if not parts or not lacking.issuperset(parts):
                    first.append(text)
                    lacking.update(parts)
            found.update(self._learn(first))
            rest = [text for text in unknown if found[text] is None]
            found.update((text, self._recall(text)) for text in rest)
            found.update(self._learn([text for text in rest if found[text] is None]))
        return [known for text in texts if (known := found[text]) is not None]

    def forget_texts(self) -> None:
        """Drop the heads of texts from the cache; last segments, which other texts share, are kept."""
        self._heads.clear()

    def _recall(self, text: str) -> EncodedText | None:
        """A text assembled from the cache; None if a part of it is missing there."""
        if not self.compositional or (border := _last_border(text)) is None:
            return None
        tail = self._tails.get(text[border:])
        if tail is None or (head := self._head(text[:border])) is None:
            return None
        before, after = self._frame
        body = head + tail
        return EncodedText(before + body + after, len(before), len(before) + len(body))

    def _head(self, head: str) -> tuple[int, ...] | None:
        """The cached ids of a head, which may itself be an earlier head and a last segment."""
        found = self._heads.get(head)
        if found is not None or (border := _last_border(head)) is None:
            return found
        before, tail = self._heads.get(head[:border]), self._tails.get(head[border:])
        if before is None or tail is None:
            return None
        self._heads.put(head, before + tail)
        return before + tail

    def _lacks(self, text: str) -> list[str]:
        """The parts of a text that are not cached; none if it is always encoded in full."""
        if not self.compositional or (border := _last_border(text)) is None:
            return []
        head, tail = text[:border], text[border:]
        lacked = [] if self._head(head) is not None else [head]
        return lacked if self._tails.get(tail) is not None else [*lacked, tail]

    def _learn(self, texts: list[str]) -> dict[str, EncodedText]:
        """Encode texts, cache their parts, and compare these with the cached ones."""
        whole: list[str] = []
        known_heads: list[str] = []
        heads: set[str] = set()
        for text in texts:
            border = _last_border(text)
            head = text[:border]
            if border is not None and self._splits and (head in heads or self._head(head) is not None):
                known_heads.append(text)
            else:
                heads.add(head)
                whole.append(text)
        found = self._learn_whole(whole)
        self._learn_tails(known_heads)
        recalled = {text: self._recall(text) for text in known_heads}
        found.update((text, known) for text, known in recalled.items() if known is not None)
        return found | self._learn_whole([text for text, known in recalled.items() if known is None])

    def _learn_whole(self, texts: list[str]) -> dict[str, EncodedText]:
        """Encode texts in full, and cache their parts."""
        self.full_encodings += len(texts)
        found = {}
        for text, encoding in zip(texts, encode_texts(self.tokenizer, texts, self.special), strict=True):
            found[text] = EncodedText(encoding.ids, encoding.start, encoding.stop)
            border = _last_border(text)
            if self.compositional and border is not None:
                self._part(text, border, encoding)
        return found

    def _learn_tails(self, texts: list[str]) -> None:
        """Encode the last segments of texts after their neighbours, without the rest of their heads."""
        if not self.compositional:
            return
        borders = [border for text in texts if (border := _last_border(text)) is not None]
        starts = [text.rfind(" ", 0, border) + 1 for text, border in zip(texts, borders, strict=True)]
        pieces = [text[start:] for text, start in zip(texts, starts, strict=True)]
        encodings = encode_texts(self.tokenizer, pieces, special=False)
        for text, border, start, encoding in zip(texts, borders, starts, encodings, strict=True):
            cut = encoding.cut(border - start)
            if cut is None or not self._loose.isdisjoint(encoding.ids):
                continue
            if self._tails.get(text[border:]) not in (None, encoding.ids[cut:]):
                self._give_up()
                return
            self._tails.put(text[border:], encoding.ids[cut:])

    def _part(self, text: str, border: int, encoding: Encoding) -> None:
        body = encoding.ids[encoding.start : encoding.stop]
        if encoding.lost or not self._loose.isdisjoint(body):
            return
        cut = encoding.cut(border)
        head, tail = encoding.ids[encoding.start : cut], encoding.ids[cut : encoding.stop]
        agrees = self._heads.get(text[:border]) in (None, head) and self._tails.get(text[border:]) in (
            None,
            tail,
        )
        framed = (encoding.ids[: encoding.start], encoding.ids[encoding.stop :]) == self._frame
        if cut is None or not agrees or not framed:
            self._give_up()
            return
        self._heads.put(text[:border], head)
        self._tails.put(text[border:], tail)
        self._heads.put(text, body)

    def _give_up(self) -> None:
        """Encode every text in full from now on."""
        self.compositional = False
        self._heads.clear()
        self._tails.clear()


class EncodedText(NamedTuple):
    """Ids of a text.

    Attributes:
        ids: the ids, with special tokens.
        start: index of the first one that is not special.
        stop: index after the last one that is not special.
    """

    ids: tuple[int, ...]
    start: int
    stop: int


class _Recent:
    """A cache of ids by string that drops its older half when full; safe to share between threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._young: dict[str, tuple[int, ...]] = {}
        self._old: dict[str, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: str) -> tuple[int, ...] | None:
        found = self._young.get(key)
        if found is None and (found := self._old.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: str, ids: tuple[int, ...]) -> None:
        if key not in self._young and len(self._young) >= max(self.limit // 2, 1):
            self._old = self._young if self.limit > 1 else {}
            self._young = {}
        self._young[key] = ids

    def clear(self) -> None:
        self._young, self._old = {}, {}


_BATCH = 4096  # texts to encode at once: bounds the memory of their offsets


def _last_border(text: str) -> int | None:
    """Where the last segment begins, if every normaliser respects that border."""
    index = text.rfind(" ")
    while index > 0 and text[index - 1].isspace():
        index = text.rfind(" ", 0, index)
    if index <= 0:
        return None
    before = text[index - 1]
    return index if before.isalnum() or "!" <= before <= "~" else None


def _splits_at_spaces(tokenizer: FastTokenizer) -> bool:
    """Whether a tokenizer looks for tokens in each segment by itself."""
    normalizer, split = tokenizer.backend_tokenizer.normalizer, tokenizer.backend_tokenizer.pre_tokenizer
    if split is None:
        return False
    text = "a b" if normalizer is None else normalizer.normalize_str("a b")
    pieces = [piece for piece, _ in split.pre_tokenize_str(text)]
    return len(pieces) > 1 and pieces[0].lstrip("▁Ġ") == "a"


def _crosses_a_space(token: str) -> bool:
    """Whether a token of a vocabulary has a space after another character, in any spelling."""
    text = (spell_bytes(token, errors="replace") or token if "Ġ" in token else token).replace("▁", " ")
    return any(after == " " and not before.isspace() for before, after in pairwise(text))

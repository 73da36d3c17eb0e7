"""Common segments of a text for several tokenizers.

A *segment* is a maximal run of non-blank characters together with the blanks before it; blanks at the end
of the text are a segment of their own. A border between two segments is *common* if no tokenizer has a
token across it; where one does (super-word tokenizers, say), the neighbours are merged for all. So every
token belongs to exactly one segment, except special tokens, which belong to none.

Everything comes from the character offsets of fast tokenizers. Pieces are never decoded and compared: a
byte-level token may be a part of a character, and a normalising tokenizer does not give the text back. The
few places where offsets are known to be wrong are no borders (see `_loses` and `_fragile_borders`).

Source: Williams and Kolter, arXiv 2408.04816, section 3.1, where segments are the "words".
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from tokenizers import models

from promptfuse.errors import ModelError


class FastTokenizer(Protocol):
    """What this package asks of a tokenizer: a fast one of ``transformers`` has it."""

    @property
    def backend_tokenizer(self) -> Any:
        """The ``tokenizers.Tokenizer`` beneath."""

    @property
    def unk_token_id(self) -> int | None:
        """Id of the unknown token, if there is one."""

    def __call__(self, text: Any, **options: Any) -> Any:
        """Encode a text or a list of texts."""

    def get_vocab(self) -> dict[str, int]:
        """Every token, added ones included, with its id."""

    def get_added_vocab(self) -> dict[str, int]:
        """The added tokens, special ones included, with their ids."""


@dataclass(frozen=True)
class Segmentation:
    """A text cut into segments that are common to several tokenizers.

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
        ModelError: if a tokenizer has no fast version, and so no offsets.
    """
    encodings = [_encode(tokenizer, text) for tokenizer in tokenizers]
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


def encode_words(
    tokenizer: FastTokenizer, words: Sequence[str], anchor: str = "a"
) -> list[tuple[int, ...] | None]:
    """Ids of words as they are used: inside a text, behind another word.

    Encoding a word by itself is not the same: some tokenizers put a blank before the first word of a
    text, and would then see two.

    Args:
        tokenizer: a fast tokenizer.
        words: strings that begin with a blank, such as ``" dog"``.
        anchor: the word before them.

    Returns:
        For each word its ids; None where the tokenizer has no token of its own for it, or has one that
        reaches into the anchor.
    """
    found: list[tuple[int, ...] | None] = []
    border = len(anchor)
    for first in range(0, len(words), _BATCH):
        texts = [anchor + word for word in words[first : first + _BATCH]]
        encoded = _call(tokenizer, texts, add_special_tokens=False)
        for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            index = len(ids)
            while index and offsets[index - 1][0] >= border:
                index -= 1
            straddles = any(stop > border for _, stop in offsets[:index]) or _loses(tokenizer, text)
            found.append(None if straddles else tuple(ids[index:]) or None)
    return found


class LastSegmentEncoder:
    """Encodes texts that grow at the end, as a left-to-right search makes them.

    A text is its head and its last segment. The ids of both are remembered, so that a beam which is
    extended by words seen before costs two look-ups. Whatever is not remembered is encoded in full and
    then cut; that is also the check: if a tokenizer has tokens across a border, or gives a part other
    ids than before, it is not word-compositional and every later text is encoded in full.

    Only borders that every known normaliser respects are used: a space (U+0020) behind a letter, a digit
    or an ASCII sign. Texts with unknown or added tokens are never put together from parts, because those
    may fuse with their neighbours.

    Args:
        tokenizer: a fast tokenizer.
        cache_size: how many heads, and how many last segments, are remembered.

    Attributes:
        compositional: whether the tokenizer has so far looked word-compositional.
        full_encodings: how many texts were encoded in full.
    """

    def __init__(self, tokenizer: FastTokenizer, cache_size: int = 65536) -> None:
        if cache_size < 1:
            raise ValueError(f"cache_size must be at least 1, got {cache_size}")
        self.tokenizer = tokenizer
        self.cache_size = cache_size
        self.full_encodings = 0
        self.compositional = not any(_crosses_a_space(token) for token in tokenizer.get_vocab())
        self._loose = set(tokenizer.get_added_vocab().values())
        if tokenizer.unk_token_id is not None:
            self._loose.add(tokenizer.unk_token_id)
        sample = _encode(tokenizer, "a")
        self._frame = (sample.ids[: sample.start], sample.ids[sample.stop :])
        self._heads: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._tails: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of the text with special tokens, equal to those of a full encoding."""
        border = _last_border(text)
        if not self.compositional or border is None:
            return self._encode_fully(text).ids
        head, tail = self._recall(self._heads, text[:border]), self._recall(self._tails, text[border:])
        if head is None or tail is None:
            return self._learn(text, border, head, tail)
        body = head + tail
        self._remember(self._heads, text, body)
        return self._frame[0] + body + self._frame[1]

    def _learn(
        self, text: str, border: int, head: tuple[int, ...] | None, tail: tuple[int, ...] | None
    ) -> tuple[int, ...]:
        """Encode in full, remember the parts, and compare them with what was remembered."""
        encoding = self._encode_fully(text)
        body = encoding.ids[encoding.start : encoding.stop]
        if encoding.lost or not self._loose.isdisjoint(body):
            return encoding.ids
        cut = encoding.cut(border)
        parts = (encoding.ids[encoding.start : cut], encoding.ids[cut : encoding.stop])
        agrees = all(old is None or old == new for old, new in zip((head, tail), parts, strict=True))
        framed = (encoding.ids[: encoding.start], encoding.ids[encoding.stop :]) == self._frame
        if cut is None or not agrees or not framed:
            self.compositional = False
            self._heads.clear()
            self._tails.clear()
            return encoding.ids
        self._remember(self._heads, text[:border], parts[0])
        self._remember(self._tails, text[border:], parts[1])
        self._remember(self._heads, text, body)
        return encoding.ids

    def _encode_fully(self, text: str) -> _Encoding:
        self.full_encodings += 1
        return _encode(self.tokenizer, text)

    def _recall(self, cache: OrderedDict[str, tuple[int, ...]], key: str) -> tuple[int, ...] | None:
        if key in cache:
            cache.move_to_end(key)
        return cache.get(key)

    def _remember(self, cache: OrderedDict[str, tuple[int, ...]], key: str, ids: tuple[int, ...]) -> None:
        cache[key] = ids
        cache.move_to_end(key)
        if len(cache) > self.cache_size:
            cache.popitem(last=False)


_BATCH = 4096  # texts that are encoded at once: bounds the memory that their offsets take


class _Encoding:
    """Ids of a text, and where its tokens may be parted: nowhere if it has lost characters."""

    def __init__(
        self,
        ids: Sequence[int],
        offsets: Sequence[tuple[int, int]],
        special: Sequence[int],
        lost: bool,
        fragile: frozenset[int],
    ) -> None:
        self.ids = tuple(ids)
        self.lost = lost
        self.fragile = fragile
        self.start, self.stop = 0, len(ids)
        while self.start < self.stop and special[self.start]:
            self.start += 1
        while self.stop > self.start and special[self.stop - 1]:
            self.stop -= 1
        spans = offsets[self.start : self.stop]
        # Offsets need not be sorted. A border parts the tokens if all before some index end at or before
        # it and all from there on start at or behind it: running extremes answer that by bisection.
        self._ends = list(accumulate((stop for _, stop in spans), max))
        self._starts = list(accumulate((start for start, _ in reversed(spans)), min))[::-1]

    def cut(self, border: int) -> int | None:
        """Index of the first token behind a border, None if tokens reach across it.

        A token of no width at the border counts as behind it.
        """
        index = bisect_left(self._starts, border)
        if self.lost or border in self.fragile or (index and self._ends[index - 1] > border):
            return None
        return self.start + index


def _encode(tokenizer: FastTokenizer, text: str) -> _Encoding:
    """Encode a text with special tokens and offsets."""
    encoded = _call(tokenizer, [text], return_special_tokens_mask=True)
    ids, offsets, special = (
        encoded[key][0] for key in ("input_ids", "offset_mapping", "special_tokens_mask")
    )
    return _Encoding(ids, offsets, special, _loses(tokenizer, text), _fragile_borders(tokenizer, text))


def _fragile_borders(tokenizer: FastTokenizer, text: str) -> frozenset[int]:
    """Borders at control characters that count as blanks and that the tokenizer's normaliser removes.

    SentencePiece's normaliser writes some characters as several (a ligature as its letters); if what stands
    right behind is removed, the library gives the last of them its place. ASCII stays as it is.
    """
    found = [
        index
        for index in range(1, len(text))
        if text[index] in _CONTROL_BLANKS and not text[index - 1].isascii()
    ]
    normalizer = tokenizer.backend_tokenizer.normalizer if found else None
    if normalizer is None:
        return frozenset()
    nothing = normalizer.normalize_str("ab")
    return frozenset(index for index in found if normalizer.normalize_str(f"a{text[index]}b") == nothing)


_CONTROL_BLANKS = "\x0b\x1c\x1d\x1e\x1f"


_MAY_LOSE: WeakKeyDictionary[FastTokenizer, bool] = WeakKeyDictionary()


def _loses(tokenizer: FastTokenizer, text: str) -> bool:
    """Whether a tokenizer has no token for some character of a text, and so loses its place.

    BPE without an unknown token drops what its vocabulary lacks, and counts the offsets of the rest as if
    it had not been there. With bytes to fall back on, of which some are missing, it gives the unknown token
    only behind the bytes of the characters that follow. Published vocabularies are complete; those that are
    trained on little text may not be.
    """
    backend = tokenizer.backend_tokenizer
    if tokenizer not in _MAY_LOSE:
        _MAY_LOSE[tokenizer] = _may_lose(backend)
    if not _MAY_LOSE[tokenizer]:
        return False
    model, normalizer, split = backend.model, backend.normalizer, backend.pre_tokenizer
    shown = normalizer.normalize_str(text) if normalizer is not None else text
    words = [word for word, _ in split.pre_tokenize_str(shown)] if split is not None else [shown]
    inner, end = model.continuing_subword_prefix or "", model.end_of_word_suffix or ""
    letters = {
        (inner if index else "") + letter + ("" if index < len(word) - 1 else end)
        for word in words
        for index, letter in enumerate(word)
    }
    return any(
        backend.token_to_id(letter) is None
        and not (model.byte_fallback and _has_bytes(backend, letter.encode("utf-8")))
        for letter in letters
    )


def _may_lose(backend: Any) -> bool:
    """Whether there may be characters that a tokenizer loses: asked first, because it is quick."""
    model, split = backend.model, backend.pre_tokenizer
    if not isinstance(model, models.BPE) or (model.unk_token is not None and not model.byte_fallback):
        return False
    if model.byte_fallback and _has_bytes(backend, range(256)):
        return False
    byte_level = split is not None and '"ByteLevel"' in split.__getstate__().decode()
    return not (byte_level and all(backend.token_to_id(letter) is not None for letter in _BYTES))


def _has_bytes(backend: Any, values: Iterable[int]) -> bool:
    return all(backend.token_to_id(f"<0x{value:02X}>") is not None for value in values)


def _call(tokenizer: FastTokenizer, texts: list[str], **options: bool) -> Mapping[str, Any]:
    """Ids and offsets of texts, without truncation or padding, whatever the tokenizer's file says."""
    if not getattr(tokenizer, "is_fast", False):
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise ModelError(f"tokenizer {name!r} has no fast version; give the model a tokenizer.json")
    encoded: Mapping[str, Any] = tokenizer(
        texts,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        truncation=False,
        padding=False,
        verbose=False,
        **options,
    )
    return encoded


def _last_border(text: str) -> int | None:
    """Where the last segment begins, if that is a border which every normaliser respects."""
    for index in range(len(text) - 1, 0, -1):
        if text[index] == " " and not text[index - 1].isspace():
            before = text[index - 1]
            return index if before.isalnum() or "!" <= before <= "~" else None
    return None


def _crosses_a_space(token: str) -> bool:
    """Whether a token of a vocabulary has a space behind a non-blank character, in any spelling."""
    text = (spell_bytes(token, errors="replace") or token if "Ġ" in token else token).replace("▁", " ")
    return any(after == " " and not before.isspace() for before, after in pairwise(text))


def spell_bytes(token: str, errors: str = "strict") -> str | None:
    """The text of a token of a byte-level vocabulary.

    Args:
        token: as it is written in the vocabulary, a letter for each byte.
        errors: what to do with bytes that are no whole characters, as for ``bytes.decode``.

    Returns:
        The text; None if the token has other letters, or, with ``"strict"``, is not of whole characters.
    """
    try:
        return bytes(_BYTES[letter] for letter in token).decode("utf-8", errors)
    except (KeyError, UnicodeDecodeError):
        return None


def _byte_of_letter() -> dict[str, int]:
    """The bytes behind the letters in which byte-level vocabularies write them (GPT-2's table)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + k): byte for k, byte in enumerate(rest)}


_BYTES = _byte_of_letter()

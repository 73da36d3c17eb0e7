"""Where a fast tokenizer's tokens are in a text, and between which of them the text may be cut.

Offsets are those of the library, except in the few places where they are known to be wrong: `loses` and
`fragile_borders` find these.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from tokenizers import models

from promptfuse.errors import ModelError


class FastTokenizer(Protocol):
    """What this package needs of a tokenizer; every fast one of ``transformers`` has it."""

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


class Encoding:
    """Ids of a text, and where it may be cut: nowhere if the tokenizer lost characters of it."""

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
        # Offsets need not be sorted. A border separates the tokens if all before some index end at or before
        # it, and all from there on start at or after it: running extremes answer that by bisection.
        self._ends = list(accumulate((stop for _, stop in spans), max))
        self._starts = list(accumulate((start for start, _ in reversed(spans)), min))[::-1]

    def cut(self, border: int) -> int | None:
        """Index of the first token after a border; None if tokens reach across it.

        A token of width zero at the border counts as after it.

        Args:
            border: index of a character.
        """
        index = bisect_left(self._starts, border)
        if self.lost or border in self.fragile or (index and self._ends[index - 1] > border):
            return None
        return self.start + index


def encode_text(tokenizer: FastTokenizer, text: str) -> Encoding:
    """Encode a text with special tokens and offsets."""
    return encode_texts(tokenizer, [text])[0]


def encode_texts(tokenizer: FastTokenizer, texts: list[str], special: bool = True) -> list[Encoding]:
    """Encode texts with offsets, with or without special tokens."""
    if not texts:
        return []
    encoded = call(tokenizer, texts, return_special_tokens_mask=True, add_special_tokens=special)
    columns = (encoded[key] for key in ("input_ids", "offset_mapping", "special_tokens_mask"))
    return [
        Encoding(ids, offsets, mask, loses(tokenizer, text), fragile_borders(tokenizer, text))
        for text, ids, offsets, mask in zip(texts, *columns, strict=True)
    ]


def fragile_borders(tokenizer: FastTokenizer, text: str) -> frozenset[int]:
    """Borders at control characters that count as spaces and that the tokenizer's normaliser removes.

    SentencePiece's normaliser expands some characters (a ligature to its letters). If the character right
    after one is removed, the library gives its offset to the last of them. ASCII is not expanded.
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


def loses(tokenizer: FastTokenizer, text: str) -> bool:
    """Whether a tokenizer has no token for some character of a text, so that its offsets are wrong.

    BPE without an unknown token drops characters that its vocabulary lacks, and counts the offsets of the
    rest as if they had not been there. With byte fallback and an incomplete set of bytes, the unknown token
    comes only after the bytes of the following characters. Published vocabularies are complete; those
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
    """Whether a tokenizer may lose characters: a quick check before the exact one."""
    model, split = backend.model, backend.pre_tokenizer
    if not isinstance(model, models.BPE) or (model.unk_token is not None and not model.byte_fallback):
        return False
    if model.byte_fallback and _has_bytes(backend, range(256)):
        return False
    byte_level = split is not None and '"ByteLevel"' in split.__getstate__().decode()
    return not (byte_level and all(backend.token_to_id(letter) is not None for letter in _BYTES))


def _has_bytes(backend: Any, values: Iterable[int]) -> bool:
    return all(backend.token_to_id(f"<0x{value:02X}>") is not None for value in values)


def call(tokenizer: FastTokenizer, texts: list[str], **options: bool) -> Mapping[str, Any]:
    """Ids and offsets of texts, without truncation or padding, whatever the tokenizer's settings.

    Args:
        tokenizer: a fast tokenizer.
        texts: any number of texts.
        options: passed to the tokenizer, such as ``add_special_tokens``.

    Raises:
        ModelError: if the tokenizer has no fast version.
    """
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


def spell_bytes(token: str, errors: str = "strict") -> str | None:
    """The text of a token of a byte-level vocabulary.

    Args:
        token: as it is written in the vocabulary, a letter for each byte.
        errors: how to treat bytes that are not whole characters, as in ``bytes.decode``.

    Returns:
        The text; None if the token has other letters or, with ``"strict"``, is not made of whole characters.
    """
    try:
        return bytes(_BYTES[letter] for letter in token).decode("utf-8", errors)
    except (KeyError, UnicodeDecodeError):
        return None


def _byte_of_letter() -> dict[str, int]:
    """The byte for each letter of byte-level vocabularies (GPT-2's table)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + k): byte for k, byte in enumerate(rest)}


_BYTES = _byte_of_letter()

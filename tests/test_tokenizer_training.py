"""The learner of the tests' tokenizers: known merges, whatever the order of the words."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.tokenizer_training import learn, train_bpe, train_unigram, train_word_piece

WORDS = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
"""The example of Sennrich et al. (2016), section 3.2."""


def test_frequent_pairs_are_merged_first_and_ties_go_by_their_symbols_age() -> None:
    pieces, merges, used = learn(WORDS, 18, ["<s>"], "z")
    assert pieces[:12] == ["<s>", *"deilnorstwz"]
    # "es" and "st" occur nine times each, then "est"; "lo", seven times, and "low".
    assert merges == [("e", "s"), ("es", "t"), ("l", "o"), ("lo", "w"), ("e", "w"), ("n", "ew")]
    assert pieces[12:] == ["es", "est", "lo", "low", "ew", "new"]
    assert used == {"low": 7, "e": 2, "r": 2, "new": 6, "est": 9, "w": 3, "i": 3, "d": 3}


@pytest.mark.parametrize("marks", [{}, {"prefix": "##"}, {"suffix": "</w>"}])
def test_the_order_of_the_words_does_not_matter(marks: dict[str, str]) -> None:
    backwards = dict(reversed(WORDS.items()))
    assert learn(WORDS, 40, **marks) == learn(backwards, 40, **marks)


def test_marks_show_where_a_piece_may_stand() -> None:
    pieces, merges, _ = learn(WORDS, 100, prefix="##")
    assert ("##e", "##s") in merges
    assert {"##es", "##est", "low", "newest"} <= set(pieces)
    pieces, merges, _ = learn(WORDS, 100, suffix="</w>")
    assert ("es", "t</w>") in merges
    assert {"est</w>", "low</w>", "er</w>"} <= set(pieces)


@pytest.mark.parametrize(
    "model", [models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), models.WordPiece(), models.Unigram()]
)
def test_words_seen_often_enough_are_one_piece(model: models.Model) -> None:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = [" ".join([word] * count) for word, count in WORDS.items()]
    train = {"BPE": train_bpe, "WordPiece": train_word_piece, "Unigram": train_unigram}[type(model).__name__]
    unknown = "[UNK]" if train is train_word_piece else "<unk>"
    train(tokenizer, texts, 100, [unknown])
    assert tokenizer.token_to_id(unknown) == 0
    assert len(tokenizer.encode("low newest widest").ids) == 3
    assert len(tokenizer.encode("lowest").ids) > 1
    assert tokenizer.encode("日").ids == [0]

"""Which tokens begin a word, and which words an adapter is fitted on."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from promptfuse.adapters.words import (
    checked_weights,
    common_words,
    count_words,
    english_words,
    vocabulary_words,
    word_starts,
)
from promptfuse.errors import AdapterError
from promptfuse.text.segments import encode_words


def by_token(tokenizer):
    names = {index: token for token, index in tokenizer.get_vocab().items()}
    return {names[index]: word for index, word in word_starts(tokenizer).items()}


def test_byte_level_words_begin_with_a_blank(tokenizers):
    starts = by_token(tokenizers["byte-level"])
    assert starts["Ġthe"] == " the"
    assert all(token.startswith("Ġ") for token in starts)
    assert not {"Ġ", "the", "ing", "<|endoftext|>"} & set(starts)


def byte_level_with(*tokens):
    vocab = {letter: k for k, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab |= {token: len(vocab) + k for k, token in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=made)


def test_byte_level_tokens_that_are_no_whole_characters_are_no_words():
    # é is the bytes C3 A9, written Ã and ©.
    starts = by_token(byte_level_with("ĠÃ©t", "ĠÃ", "ĠtoĠbe", "ĠĠa", "ĠĊ"))
    assert starts == {"ĠÃ©t": " ét"}


def test_clip_words_are_the_tokens_with_an_end_mark(tokenizers):
    starts = by_token(tokenizers["clip"])
    assert starts["the</w>"] == " the"
    assert all(token.endswith("</w>") for token in starts)


def test_word_piece_words_are_the_tokens_that_continue_nothing(tokenizers):
    starts = by_token(tokenizers["word-piece"])
    assert starts["the"] == " the"
    assert not any(token.startswith("##") for token in starts)
    assert "[CLS]" not in starts


def test_metaspace_words_begin_with_the_mark(tokenizers):
    starts = by_token(tokenizers["metaspace"])
    assert starts["▁the"] == " the"
    assert all(token.startswith("▁") and len(token) > 1 for token in starts)


def test_words_of_a_word_level_tokenizer_are_its_tokens():
    made = Tokenizer(models.WordLevel({"dog": 0, "cat": 1, "[UNK]": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")
    assert by_token(tokenizer) == {"dog": " dog", "cat": " cat"}


@pytest.mark.parametrize("family", ["byte-level", "clip", "word-piece", "metaspace"])
def test_trap_13_words_carry_their_blank_their_cases_and_a_weight(tokenizers, family):
    words = vocabulary_words(tokenizers[family])
    assert all(word[0] == " " and " " not in word[1:] for word in words)
    assert {" the", " The"} <= set(words)
    assert words[" the"] == words[" The"]
    ranked = list(words.values())
    assert ranked == sorted(ranked, reverse=True)
    assert len(set(ranked)) > 10


def test_tokens_that_the_tokenizer_would_not_use_are_no_words_to_fit_on():
    tokenizer = byte_level_with("ĠÃ©t")
    assert word_starts(tokenizer)
    assert vocabulary_words(tokenizer) == {}


def test_words_of_files_are_counted_in_their_case(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("the dog\nand The dog\n", encoding="utf-8")
    second.write_text("café the", encoding="utf-8")
    assert count_words([first, str(second)]) == {" the": 2, " dog": 2, " and": 1, " The": 1, " café": 1}


def test_a_path_is_one_file_and_not_its_letters(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("the dog the", encoding="utf-8")
    assert count_words(str(file)) == count_words(file) == count_words([file]) == {" the": 2, " dog": 1}
    for wrong, named in ((5, "5 is neither"), ([5], "5 is not a path"), (str(tmp_path / "gone"), "gone")):
        with pytest.raises(AdapterError, match=named) as caught:
            count_words(wrong)
        assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("the dog", encoding="utf-8-sig")
    assert file.read_bytes().startswith(b"\xef\xbb\xbf")
    assert count_words(file) == {" the": 1, " dog": 1}


def test_rare_words_are_dropped_where_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr("promptfuse.adapters.words._MOST_WORDS", 3)
    file = tmp_path / "many.txt"
    file.write_text("the dog\n" * 5 + "\n".join(f"w{k}" for k in range(50)), encoding="utf-8")
    counted = count_words([file])
    assert len(counted) == 3
    assert counted[" the"] == counted[" dog"] == 5


def test_files_that_are_no_text_are_refused_in_one_line(tmp_path):
    binary = tmp_path / "photo.jpg"
    binary.write_bytes(b"\xff\xd8\xff\xe0")
    empty = tmp_path / "empty.txt"
    empty.touch()
    for files, named in (
        ([binary], "photo.jpg"),
        ([tmp_path / "none.txt"], "none.txt"),
        ([empty], "no words"),
    ):
        with pytest.raises(AdapterError, match=named) as caught:
            count_words(files)
        assert "\n" not in str(caught.value)


def test_given_words_get_their_blank():
    assert checked_weights({"dog": 1, " dog": 2, "Cat": 3}) == {" dog": 3, " Cat": 3}


@pytest.mark.parametrize(
    "words",
    [
        {}, {" ": 1.0}, {"two words": 1.0}, {"dog": 0.0}, {"dog": float("nan")}, {"dog": "often"}, {5: 1.0},
        {"dog": None},
    ],
)  # fmt: skip
def test_given_words_that_are_none_are_refused(words):
    with pytest.raises(AdapterError):
        checked_weights(words)


def test_words_of_the_first_models_tokens_weigh_most(tokenizers):
    a, b = tokenizers["byte-level"], tokenizers["word-piece"]
    weights = common_words(a, b)
    whole = {word for word in word_starts(a).values() if len(encode_words(a, [word])[0]) == 1}
    assert whole <= weights.keys()
    assert weights.keys() - whole == (vocabulary_words(a).keys() | vocabulary_words(b).keys()) - whole
    assert max(weights[word] for word in weights.keys() - whole) <= 1e-8
    ranked = sorted(whole, key=lambda word: -weights[word])
    assert [weights[word] for word in ranked] == [1 / rank for rank in range(1, len(ranked) + 1)]


def test_the_built_in_words_have_their_forms_and_frequencies():
    words = english_words()
    assert len(words) > 50_000
    assert all(word[0] == " " and word[1:].strip() == word[1:] != "" for word in words)
    assert max(words, key=words.__getitem__) == " the"
    assert 0.03 < words[" the"] < 0.08
    assert words[" The"] == pytest.approx(words[" the"] / 10)
    assert words[" dog"] > words[" poodle"] > 0
    assert 0.8 < sum(words.values()) < 1.1

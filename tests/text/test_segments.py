"""Common segments and incremental encoding, for tokenizers of every family, trained here on a few words."""

import json
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from promptfuse.errors import ModelError
from promptfuse.text.offsets import encode_texts
from promptfuse.text.segments import LastSegmentEncoder, encode_words, segment_text
from tests.tokenizer_training import train_bpe, train_unigram, train_word_piece

TEXT = [
    "the quick brown fox jumps over the lazy dog and a small cat sits on the mat in front of two people",
    "The Dog runs, the cat's owner isn't amused; naïve café visitors drink 1234 cups of tea (or not).",
    "a photo of a man riding a wave on top of a surfboard while the sun goes down behind the mountains",
    "你好世界 สวัสดีชาวโลก привет мир שלום עולם emoji 😀👍🏽 and more",
] * 5
ALPHABET = pre_tokenizers.ByteLevel.alphabet()


def template(tokenizer, single, *special):
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(name, tokenizer.token_to_id(name)) for name in special]
    )


def byte_level(prefix_space=False, trim=False, texts=TEXT, pattern=None):
    """Byte-level BPE: GPT-2; with a prefix space and trimmed offsets, RoBERTa."""
    made = Tokenizer(models.BPE())
    split = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=pattern is None)
    if pattern is not None:
        split = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), split])
    made.pre_tokenizer, made.decoder = split, decoders.ByteLevel()
    train_bpe(made, texts, 500, ["<s>", "</s>"], ALPHABET)
    if trim:
        made.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=True)
    return PreTrainedTokenizerFast(tokenizer_object=made)


def clip():
    """Lower-casing BPE with end-of-word marks, BOS and EOS."""
    made = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<end>"))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    train_bpe(made, TEXT, 500, ["<start>", "<end>"], ALPHABET)
    template(made, "<start> $A <end>", "<start>", "<end>")
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<end>")


def word_piece():
    """BERT's: lower-cased, accents stripped, blanks dropped."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    train_word_piece(made, TEXT, 300, ["[UNK]", "[CLS]", "[SEP]"])
    template(made, "[CLS] $A [SEP]", "[CLS]", "[SEP]")
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")


def unigram(scheme="always"):
    """T5's: NFKC, runs of blanks collapsed, Metaspace, EOS."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    train_unigram(made, TEXT, 250, ["<unk>", "</s>"])
    template(made, "$A </s>", "</s>")
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


def sentencepiece_bpe():
    """Llama's: no pre-tokenizer, blanks replaced by the normaliser, one put in front, bytes, BOS."""
    words = [f"▁{word}" for line in TEXT for word in line.split()]
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    train_bpe(made, words, 600, ["<unk>", "<s>"])
    state = json.loads(made.to_str())
    vocab = state["model"]["vocab"]
    for byte in range(128, 256):  # only these: so that rare ASCII signs stay unknown, and fuse
        vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    made = Tokenizer.from_str(json.dumps(state))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    template(made, "<s> $A", "<s>")
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


def super_word():
    """Byte-level BPE whose tokens may hold several words."""
    return byte_level(pattern=r"[^,]+|,", texts=TEXT)


def blank_dropping():
    """Throws blanks away and joins what they parted; its vocabulary does not show it."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.Replace(" ", "")
    train_bpe(made, TEXT, 200, ["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=made)


FAMILIES = {
    "byte-level": byte_level,
    "byte-level, prefix space, trimmed": lambda: byte_level(prefix_space=True, trim=True),
    # Runs of punctuation swallow the newlines behind them, as for Llama 3 and Qwen 2.
    "byte-level, newline-swallowing": lambda: byte_level(
        pattern=r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        texts=[*TEXT, *["end.\n\nstart;\n next"] * 9],
    ),
    "clip": clip,
    "word-piece": word_piece,
    "unigram": unigram,
    "unigram, no prefix": lambda: unigram("never"),
    "unigram, first": lambda: unigram("first"),
    "sentencepiece bpe": sentencepiece_bpe,
    "super-word": super_word,
    "blank-dropping": blank_dropping,
}


@cache
def family(name):
    return FAMILIES[name]()


words = st.sampled_from(sorted({word for line in TEXT for word in line.split()}))
blanks = st.sampled_from(
    [" ", " ", " ", " ", "  ", "   ", "\n", "\t", " \n ", "\u00a0", "\u2003", "\x0b", "\x1c"]
)
# Combining marks, ligatures, signs that normalise to blanks or to nothing, a joined emoji; special tokens
# spelled out; the marks of other tokenizers; control characters; punctuation.
oddities = st.one_of(
    st.sampled_from(["e\u0301", "\u0301", "\u200b", "İ", "ﬁ", "ﷺ", "´", "Å", "👩\u200d👩\u200d👧", "0", "½"]),
    st.sampled_from(["<s>", "</s>", "<end>", "[SEP]", "<unk>", "[UNK]", "▁", "Ġ", "##ing"]),
    st.sampled_from(["\x00", "\ufeff", "\u202e", "''s", ".", ",", ";\n"]),
)
pieces = st.one_of(
    words, words, words, blanks, blanks, blanks, oddities, st.characters(exclude_categories=["Cs"])
)
texts = st.lists(pieces, max_size=12).map("".join)
every = pytest.mark.parametrize("name", FAMILIES)
quick = settings(max_examples=40, deadline=None, derandomize=True)


def full(tokenizer, text):
    return tuple(tokenizer(text)["input_ids"])


@every
@quick
@given(text=texts)
@example(text="")
@example(text="   ")
@example(text=" a  dog \n")
def test_every_token_belongs_to_exactly_one_segment(name, text):
    tokenizer = family(name)
    cut = segment_text(text, [tokenizer, family("byte-level")])
    assert "".join(cut.strings) == text
    encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    assert cut.ids[0] == tuple(encoded["input_ids"])
    owned = [index for start, stop in cut.token_spans[0] for index in range(start, stop)]
    inside = [index for index, special in enumerate(encoded["special_tokens_mask"]) if not special]
    assert owned == (inside if text else [])
    for (first, last), (start, stop) in zip(cut.segments, cut.token_spans[0], strict=True):
        for begin, end in encoded["offset_mapping"][start:stop]:
            assert first <= begin <= end <= last


@quick
@given(text=texts)
def test_segments_begin_with_blanks_and_hold_a_run(text):
    cut = segment_text(text, [family("byte-level"), family("clip")])
    for segment in cut.strings[1:]:
        assert segment[0].isspace()
    assert all(not segment[-1].isspace() for segment in cut.strings[:-1])


@quick
@given(text=texts)
def test_segments_are_common_to_all_tokenizers_together(text):
    names = list(FAMILIES)
    together = segment_text(text, [family(name) for name in names])
    alone = [segment_text(text, [family(name)]) for name in names]
    borders = set.intersection(*({start for start, _ in cut.segments} for cut in alone))
    assert {start for start, _ in together.segments} == borders
    assert all(len(spans) == len(together) for spans in together.token_spans)


def test_words_are_segments_with_the_blanks_before_them():
    cut = segment_text(" a  small dog ", [family("byte-level"), family("word-piece")])
    assert cut.strings == (" a", "  small", " dog", " ")
    assert cut.segments == ((0, 2), (2, 9), (9, 13), (13, 14))
    # The blank at the end has a token in one model and none in the other.
    start, stop = cut.token_spans[0][-1]
    assert stop - start == 1
    assert cut.token_spans[1][-1] == (cut.token_spans[1][-2][1],) * 2


def test_neighbours_are_merged_where_a_token_straddles_their_border():
    text = "a photo of a dog"
    alone = segment_text(text, [family("byte-level")])
    merged = segment_text(text, [family("byte-level"), family("super-word")])
    assert len(alone) == 5
    assert len(merged) < 5
    assert set(merged.segments[0]) | {end for _, end in merged.segments} <= {0} | {
        end for _, end in alone.segments
    }


def test_text_without_blanks_is_one_segment():
    assert segment_text("你好世界😀", [family("byte-level"), family("clip")]).segments == ((0, 5),)


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False
        name_or_path = "slow/one"

    with pytest.raises(ModelError, match="slow/one"):
        segment_text("text", [Slow()])


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("super-word", "blank-dropping")])
def test_words_are_encoded_as_they_are_used(name):
    """With their blank and behind another word, and so without a second blank in front."""
    tokenizer = family(name)
    found = encode_words(tokenizer, [" dog", " photo", " mountains"])
    text = segment_text("the dog photo mountains", [tokenizer])
    spans = text.token_spans[0][1:]
    assert found == [text.ids[0][start:stop] for start, stop in spans]


def test_words_without_tokens_or_across_the_border_have_no_ids():
    assert encode_words(family("word-piece"), [" \u200b"]) == [None]
    assert encode_words(family("blank-dropping"), [" nd", " small"])[0] is None


@every
@quick
@given(parts=st.lists(pieces, min_size=1, max_size=10), seed=texts)
@example(parts=["a", " ", "\x1c", "dog", " ", "cat"], seed="")
@example(parts=["\u200b", " ", "dog"], seed="the dog")
@example(parts=["end.", "\n\n", "start", " ", "next"], seed="end.")
@example(parts=["the", " ", "\u0301", " ", "dog"], seed="the dog")
def test_incremental_encoding_equals_full_encoding(name, parts, seed):
    """While a text grows piece by piece, with what earlier texts left in the cache."""
    tokenizer = family(name)
    encoder = encoder_of(name)
    text = seed
    for part in parts:
        text += part
        assert encoder.encode(text) == full(tokenizer, text)
    if name != "blank-dropping":  # which is noticed once it has joined two words, see below
        assert encoder.compositional == (name != "super-word")


@cache
def encoder_of(name):
    return LastSegmentEncoder(family(name), cache_size=64)


@pytest.mark.parametrize(
    "name",
    ["byte-level", "byte-level, prefix space, trimmed", "clip", "word-piece", "unigram", "sentencepiece bpe"],
)
def test_known_words_behind_known_texts_cost_no_encoding(name):
    encoder = LastSegmentEncoder(family(name))
    candidates = [" dog", " cat", " photo", " small"]
    for word in candidates:
        encoder.encode("the" + word)
    before = encoder.full_encodings
    for first in candidates:
        for second in candidates:
            text = f"the{first}{second}"
            assert encoder.encode(text) == full(family(name), text)
    assert encoder.compositional
    assert encoder.full_encodings == before


@pytest.mark.parametrize("name", ["super-word", "blank-dropping"])
def test_tokenizers_that_are_not_word_compositional_are_noticed(name):
    encoder = LastSegmentEncoder(family(name))
    for text in (
        "the",
        "the dog",
        "the dog and",
        "the dog and a",
        "a small cat",
        "a photo of a man",
        "a sits",
    ):
        assert encoder.encode(text) == full(family(name), text)
    assert not encoder.compositional


def test_the_cache_is_bounded():
    encoder = LastSegmentEncoder(family("byte-level"), cache_size=3)
    for k in range(20):
        encoder.encode(f"the dog {k}")
    assert len(encoder._heads) <= 3
    assert len(encoder._tails) <= 3
    with pytest.raises(ValueError, match="cache_size"):
        LastSegmentEncoder(family("byte-level"), cache_size=0)


@pytest.mark.parametrize("name", ["byte-level", "clip", "word-piece"])
def test_new_words_are_read_behind_their_neighbours_alone(name, monkeypatch):
    read = []

    def watched(tokenizer, texts, special=True):
        read.extend(texts)
        return encode_texts(tokenizer, texts, special)

    monkeypatch.setattr("promptfuse.text.segments.encode_texts", watched)
    encoder = LastSegmentEncoder(family(name))
    head = "a photo of a small dog"
    texts = [head + word for word in (" photo", " dog", " a", "  the", " cat", " small photo")]
    encoder.encode(head)
    read.clear()
    for text, found in zip(texts, encoder.encode_many(texts), strict=True):
        assert found.ids == full(family(name), text)
    assert encoder.compositional
    # The last one's head is new; of the others only the last words are, but for "dog", which is known.
    assert sorted(read) == [texts[5], "dog  the", "dog a", "dog cat", "dog photo"]


def test_a_tokenizer_file_that_truncates_and_pads_does_not_matter():
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    text = "a photo of a small dog"
    assert segment_text(text, [tokenizer]).ids[0] == full(family("byte-level"), text)


def test_texts_can_be_forgotten_and_last_segments_stay():
    encoder = LastSegmentEncoder(family("byte-level"))
    encoder.encode("a red dog")
    before = encoder.full_encodings
    encoder.forget_texts()
    assert encoder.encode("a red dog") == LastSegmentEncoder(family("byte-level")).encode("a red dog")
    assert encoder.full_encodings == before + 1
    encoder.encode("a red dog dog")
    assert encoder.full_encodings == before + 1

"""Published tokenizers: read right, and cut into the same words."""

import pytest

from promptfuse.text.segments import LastSegmentEncoder, encode_words, segment_text
from tests import real_tokenizers

pytestmark = pytest.mark.skipif(
    len(real_tokenizers.NAMES) < 6, reason="the published tokenizers are not at hand (shared/data/tokenizers)"
)

# As in the vocabularies that were published.
DOG = {
    "real gpt2": (3290,),
    "real clip": (1929,),
    "real llama2": (11203,),
    "real bert": (3899,),
    "real bart": (2335,),
    "real t5": (1782,),
}


@pytest.fixture(scope="module")
def tokenizers():
    return {name: real_tokenizers.load(name) for name in real_tokenizers.NAMES}


def test_they_are_read_as_published(tokenizers):
    assert {name: encode_words(tokenizers[name], [" dog"])[0] for name in DOG} == DOG


def test_all_agree_on_the_words_of_a_caption(tokenizers):
    text = "Two brown dogs, mother and puppy, play by the Neuschwanstein waterfall."
    cut = segment_text(text, list(tokenizers.values()))
    assert [string.strip() for string in cut.strings] == text.split()
    for name, ids, spans in zip(tokenizers, cut.ids, cut.token_spans, strict=True):
        assert all(stop > start for start, stop in spans), name
        assert sum(stop - start for start, stop in spans) == len(ids) - sum(
            tokenizers[name]("", return_special_tokens_mask=True)["special_tokens_mask"]
        ), name


def test_a_growing_caption_is_encoded_as_a_whole_one(tokenizers):
    words = "A café owner's dog runs — fast!! — over 3,000 m of snow".split(" ")
    for name, tokenizer in tokenizers.items():
        encoder = LastSegmentEncoder(tokenizer)
        for count in range(1, len(words) + 1):
            text = " ".join(words[:count])
            assert list(encoder.encode(text)) == tokenizer(text)["input_ids"], (name, text)

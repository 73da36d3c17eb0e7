from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from promptfuse import Fluency, load_model
from promptfuse.errors import ConfigError, ModelError
from promptfuse.evaluation.metrics import Captions, Unavailable
from promptfuse.evaluation.metrics.language import LabelAccuracy, Perplexity
from promptfuse.models import CausalLM

TEXTS = ["A dog runs on the beach.", "a cat", "", "Two people sit in a small boat on a lake near the forest."]


def captions(texts=TEXTS):
    return Captions([str(index) for index in range(len(texts))], texts, [[] for _ in texts])


@pytest.fixture(scope="module")
def lm():
    return load_model("mini-lm")


@pytest.fixture(scope="module")
def tone():
    return load_model("mini-tone")


def test_perplexity_is_that_of_the_fluency_term(lm):
    per_word, per_token = Perplexity(lm).measure(captions())
    total = tokens = words = 0.0
    for index, text in enumerate(TEXTS):
        if not text:
            assert np.isnan(per_token.values[index])
            continue
        count = len(lm.plain_ids([text])[0])
        nll = Fluency(lm).exact(text) * count
        assert per_token.values[index] == pytest.approx(math.exp(nll / count), rel=1e-4)
        assert per_word.values[index] == pytest.approx(math.exp(nll / len(text.split())), rel=1e-4)
        total, tokens, words = total + nll, tokens + count, words + len(text.split())
    assert per_token.value == pytest.approx(math.exp(total / tokens), rel=1e-4)
    assert per_word.value == pytest.approx(math.exp(total / words), rel=1e-4)
    assert per_word.n == 3


def test_any_batch_size_gives_the_same(lm):
    whole, parts = (Perplexity(lm, batch_size=size).measure(captions())[0] for size in (64, 1))
    given = [0, 1, 3]
    assert whole.values[given] == pytest.approx(parts.values[given], rel=1e-4)


def test_shuffled_words_are_less_fluent(lm):
    right, wrong = (
        Perplexity(lm).measure(captions([text]))[0].value
        for text in ("a dog runs on the beach", "beach the on runs dog a")
    )
    assert wrong > 3 * right


def test_resampled_perplexity_is_that_of_the_corpus(lm):
    column = Perplexity(lm).measure(captions())[0]
    again = Perplexity(lm).measure(captions([TEXTS[0], TEXTS[0], TEXTS[3]]))[0]
    assert column.estimate(np.array([[2.0, 0, 0, 1]]))[0] == pytest.approx(again.value, rel=1e-4)


def test_empty_captions_alone_have_no_perplexity(lm):
    assert all(isinstance(one, Unavailable) for one in Perplexity(lm).measure(captions(["", " "])))


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["a dog runs, jumping. " * 300, "Ein unglaublich langes Kunstwort und noch eins " * 99]
)
def test_a_caption_that_is_cut_is_judged_as_the_text_that_is_read(lm, text):
    """Sum and count are of the same words: as many as the model reads, and not one more."""
    words = text.split()
    read = next(
        " ".join(words[:count])
        for count in range(len(words), 0, -1)
        if len(lm.start_ids) + len(lm.plain_ids([" ".join(words[:count])])[0]) <= lm.max_length
    )
    for long, short in zip(
        Perplexity(lm).measure(captions([text])), Perplexity(lm).measure(captions([read])), strict=True
    ):
        assert long.value == pytest.approx(short.value, rel=1e-5)
        assert (long.cut, short.cut) == ({0}, frozenset())
        assert f"1 caption was cut to the {lm.max_length} tokens" in long.note
        assert short.note == ""
    nll = Fluency(lm).exact(read) * len(lm.plain_ids([read])[0])
    (per_word, _) = Perplexity(lm).measure(captions([text]))
    assert per_word.value == pytest.approx(math.exp(nll / len(read.split())), rel=1e-4)


def test_a_cut_caption_does_not_lower_the_corpus(lm):
    text = "a dog runs, jumping. "
    short, both = (
        Perplexity(lm).measure(captions(some))[0] for some in ([text * 3], [text * 3, text * 2000])
    )
    # Behind a few rounds each further one is expected, but no word may be counted that was not read.
    words = both.parts[:, 1]
    assert words[0] == short.parts[0, 1] == 12
    assert words[1] <= lm.max_length


@pytest.mark.parametrize("text", ["xq" * 3000, "狗在公园里跑。" * 300])
def test_a_word_that_is_longer_than_the_model_reads(lm, text):
    """No whole word is read, so that there is none whose sum could be told."""
    both, alone = (Perplexity(lm).measure(captions(some)) for some in ([text, "a cat"], ["a cat"]))
    (per_word, per_token) = both
    assert per_token.cut == {0}
    assert per_word.parts[0].tolist() == [0, 0]
    assert per_word.value == pytest.approx(alone[0].value)
    assert np.isfinite(per_token.values).all()
    (nothing, _) = Perplexity(lm).measure(captions([text]))
    assert not np.isfinite(nothing.value)
    assert "1 caption was cut" in nothing.note


def test_a_caption_of_which_nothing_is_predicted_has_no_value(checkpoint):
    model = started(checkpoint("llama"), "none")
    token = next(text for text in ("a", "dog", "the") if len(model.plain_ids([text])[0]) == 1)
    found = Perplexity(model).measure(captions([token, "a dog runs"]))
    assert all(np.isnan(column.values[0]) for column in found)
    assert all(np.isfinite(column.values[1]) for column in found)


def started(folder, start):
    plain = load_model(folder)
    return CausalLM(plain.module, plain.tokenizer, plain.name, start=start)


def test_without_a_begin_token_the_first_word_counts_on_neither_side(checkpoint):
    model = started(checkpoint("llama"), "none")
    assert model.start_ids == ()
    texts = ["a dog runs on the beach", "a dog", "dog"]
    per_word, per_token = Perplexity(model).measure(captions(texts))
    assert per_word.parts[:, 1].tolist() == [5, 1, 0]
    for index, text in enumerate(texts[:2]):
        ids = model.plain_ids([text])[0]
        skipped = len(model.plain_ids([text.split()[0]])[0])
        with torch.no_grad():
            losses = model.token_nll(model.collate([ids], [(0, len(ids))]))[0].double()
        rest = float(losses[skipped - 1 :].sum())
        assert per_word.values[index] == pytest.approx(math.exp(rest / (len(text.split()) - 1)), rel=1e-4)
        assert per_token.values[index] == pytest.approx(math.exp(losses.mean()), rel=1e-4)
    assert np.isnan(per_word.values[2])


def test_what_stands_before_a_caption_counts_on_neither_side(checkpoint):
    model = started(checkpoint("llama"), "the dog: {}")
    front = len(model.start_ids)
    assert front > 1
    per_word, per_token = Perplexity(model).measure(captions(["a dog runs"]))
    ids = model.plain_ids(["a dog runs"])[0]
    row = [*model.start_ids, *ids]
    with torch.no_grad():
        losses = model.token_nll(model.collate([row], [(front, len(row))]))[0, front - 1 :].double()
    assert len(losses) == len(ids)
    assert per_token.value == pytest.approx(math.exp(losses.mean()), rel=1e-4)
    assert per_word.value == pytest.approx(math.exp(losses.sum() / 3), rel=1e-4)


def test_a_cut_caption_is_told_by_the_classifier(tone):
    (found,) = LabelAccuracy(tone, "positive").measure(captions(["good " * 5000, "a dog"]))
    assert found.cut == {0}
    assert "1 caption was cut" in found.note


def test_accuracy_is_the_share_of_the_likeliest_label(tone):
    texts = ["a wonderful happy day", "a terrible awful mess", "I love this great photo", "a dog"]
    (found,) = LabelAccuracy(tone, "Positive").measure(captions(texts))
    expected = []
    for text in texts:
        with torch.no_grad():
            best = int(tone.log_probabilities(tone.encode([text])).argmax())
        expected.append(float(tone.labels[best].lower() == "positive"))
    assert found.values.tolist() == expected
    assert found.values[:3].tolist() == [1, 0, 1]
    assert found.value == sum(expected) / 4
    assert found.title == "positive accuracy"


def test_labels(tone):
    with pytest.raises(ConfigError, match="has no label 'joyful'; choose from"):
        LabelAccuracy(tone, "joyful")
    (found,) = LabelAccuracy(tone, None).measure(captions())
    assert "positive" in found.reason


def test_other_kinds_of_models(lm, tone):
    with pytest.raises(ModelError, match="perplexity needs a model of kind causal-lm"):
        Perplexity(tone)
    with pytest.raises(ModelError, match="sentiment accuracy needs a model of kind classifier"):
        LabelAccuracy(lm, "positive")

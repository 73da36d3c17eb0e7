from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from promptfuse import Fluency, load_model
from promptfuse.errors import ConfigError, ModelError
from promptfuse.evaluation.metrics import Captions, Unavailable
from promptfuse.evaluation.metrics.language import LabelAccuracy, Perplexity

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


def test_long_captions_are_cut(lm):
    found = Perplexity(lm).measure(captions(["a dog " * 1000, "a cat"]))[1]
    assert "1 texts were cut" in found.note
    assert np.isfinite(found.values).all()


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

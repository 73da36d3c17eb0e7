from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from promptfuse.evaluation.metrics import Captions, Unavailable
from promptfuse.evaluation.metrics.diversity import Diversity, Words, cider_kernel, self_cider


def measured(texts, references=None, **more):
    ids = [str(index) for index in range(len(texts))]
    captions = Captions(ids, texts, references or [[] for _ in texts], tokenizer="python")
    return {column.name: column for column in Diversity(**more).measure(captions)}


def test_by_hand():
    found = measured(["a dog runs", "A dog runs.", "a cat"])
    # Of eight words a, dog, runs, cat; of five pairs a dog, dog runs, a cat.
    assert found["distinct_1"].value == 4 / 8
    assert found["distinct_2"].value == 3 / 5
    assert found["vocabulary"].value == 4
    assert found["unique"].value == pytest.approx(2 / 3)
    assert found["unique"].values == pytest.approx([0.5, 0.5, 1])


def test_all_alike():
    found = measured(["a dog runs fast"] * 6, [[f"word{n} other{n}"] for n in range(6)])
    assert found["self_cider"].value == pytest.approx(0, abs=1e-6)
    assert found["pairwise_cider"].value == pytest.approx(10)
    assert found["unique"].value == pytest.approx(1 / 6)


def test_all_unlike():
    texts = ["a b c d", "e f g h", "i j k l", "m n o p"]
    found = measured(texts)
    assert found["self_cider"].value == pytest.approx(1)
    assert found["pairwise_cider"].value == pytest.approx(0)


def test_self_cider_is_the_ratio_of_singular_values():
    # Two captions of likeness s: the kernel's eigenvalues are 1 + s and 1 - s (Wang & Chan 2019, section 3).
    s = 0.3
    share = math.sqrt(1 + s) / (math.sqrt(1 + s) + math.sqrt(1 - s))
    assert self_cider(np.array([[1, s], [s, 1]])) == pytest.approx(-math.log(share, 2))


def test_the_kernel_is_the_formula(made_up):
    predictions, references = made_up
    ids = list(predictions)[:15]
    texts = [predictions[id_].split() for id_ in ids]
    documents = [[text.split() for text in references[id_]] for id_ in ids]

    def grams(words, n):
        return [tuple(words[first : first + n]) for first in range(len(words) - n + 1)]

    def weights(words, n):
        return {
            gram: count
            * math.log(len(ids) / max(1, sum(any(gram in grams(t, n) for t in group) for group in documents)))
            for gram, count in Counter(grams(words, n)).items()
        }

    def likeness(first, second):
        total = 0.0
        for n in range(1, 5):
            own, theirs = weights(first, n), weights(second, n)
            norms = math.hypot(*own.values()) * math.hypot(*theirs.values())
            total += sum(own[gram] * theirs.get(gram, 0) for gram in own) / norms / 4 if norms else 0
        return total

    expected = [[likeness(first, second) for second in texts] for first in texts]
    assert cider_kernel(texts, documents) == pytest.approx(np.array(expected), abs=1e-9)


def test_short_captions_are_like_themselves():
    kernel = cider_kernel([["a", "dog"], ["a", "dog"], ["x", "y", "z", "q", "w"], []], [[["k"]], [["l"]]])
    assert np.diag(kernel).tolist() == pytest.approx([1, 1, 1, 0])
    assert kernel[0, 1] == pytest.approx(1)


def test_a_sample_of_many_is_drawn_by_the_seed(made_up):
    texts = list(made_up[0].values())
    every = measured(texts)["pairwise_cider"]
    first, again = (measured(texts, sample=100)["pairwise_cider"] for _ in range(2))
    assert first.value == again.value
    assert first.n == 100
    assert first.value == pytest.approx(every.value, rel=0.1)


def test_the_value_is_the_mean_of_the_captions(made_up):
    found = measured(list(made_up[0].values())[:50])["pairwise_cider"]
    assert found.value == pytest.approx(found.values.mean())


@pytest.mark.parametrize("texts", [["a dog"], ["", ""], ["a dog", ""]])
def test_too_few_captions_for_pairs(texts):
    found = measured(texts)
    assert isinstance(found["pairwise_cider"], Unavailable)
    assert isinstance(found["self_cider"], Unavailable)


def test_one_word_captions_have_no_pairs_of_words():
    assert "2 words" in measured(["dog", "cat"])["distinct_2"].reason


def test_words_do_not_count_punctuation():
    captions = Captions(["1", "2"], ["A dog, a cat.", "..."], [[], []], tokenizer="python")
    (found,) = Words().measure(captions)
    assert found.values.tolist() == [4, 0]
    assert found.value == 2

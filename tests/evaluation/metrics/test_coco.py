from __future__ import annotations

import builtins
import math
from collections import Counter

import numpy as np
import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics import Captions, Unavailable, score
from promptfuse.evaluation.metrics.coco import Bleu, CiderD, RougeL


def captions(texts, references, **more):
    return Captions(
        [str(index) for index in range(len(texts))], texts, references, tokenizer="python", **more
    )


def grams(text, n):
    words = text.split()
    return [tuple(words[first : first + n]) for first in range(len(words) - n + 1)]


class TestBleu:
    def test_by_hand(self):
        # "the" counts twice, as often as the reference has it (Papineni et al. 2002, section 2.1).
        found = Bleu().measure(captions(["the the the the the the"], [["the cat is on the mat"]]))
        assert found[0].value == pytest.approx(2 / 6)
        assert found[1].value == pytest.approx(0, abs=1e-4)

    def test_identical_text_is_one(self):
        text = "a brown dog runs on the beach"
        for column in Bleu().measure(captions([text, text], [[text, "a dog"], [text]])):
            assert column.value == pytest.approx(1)
            assert column.values == pytest.approx(1)

    def test_short_captions_are_punished(self):
        found = Bleu().measure(captions(["a dog"], [["a dog runs fast"]]))
        assert found[0].value == pytest.approx(math.exp(1 - 4 / 2))

    def test_the_closest_reference_tells_the_length(self):
        found = Bleu().measure(captions(["a dog"], [["a dog runs fast", "a dog ran"]]))
        assert found[0].value == pytest.approx(math.exp(1 - 3 / 2))

    def test_the_corpus_is_no_mean(self):
        found = Bleu().measure(captions(["a b c d", "x"], [["a b c d"], ["y z"]]))
        assert found[0].value == pytest.approx(4 / 5 * math.exp(1 - 6 / 5))
        assert found[0].values == pytest.approx([1, 0], abs=1e-6)


class TestRougeL:
    def test_by_hand(self):
        # The longest common subsequence is "police the gunman" of four words (Lin 2004, section 3.1).
        found = RougeL().measure(captions(["police kill the gunman"], [["police killed the gunman"]]))
        assert found[0].value == pytest.approx(3 / 4)

    def test_precision_and_recall_weigh_differently(self):
        (found,) = RougeL().measure(captions(["a dog runs fast now"], [["a dog"]]))
        precision, recall = 2 / 5, 1.0
        assert found.value == pytest.approx((1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision))

    def test_bounds(self):
        (found,) = RougeL().measure(captions(["a dog", "x y"], [["a dog"], ["a cat"]]))
        assert found.values.tolist() == [1, 0]
        assert found.value == 0.5


def naive_cider_d(texts, references):
    """Vedantam et al. 2015, equations 1 to 4 and section 6: one photo after the other, by the formula."""
    documents = len(references)
    scores = []
    for text, several in zip(texts, references, strict=True):
        total = 0.0
        for reference in several:
            for n in range(1, 5):

                def weights(words, n=n):
                    return {
                        gram: count
                        * (
                            math.log(documents)
                            - math.log(
                                max(1, sum(any(gram in grams(r, n) for r in group) for group in references))
                            )
                        )
                        for gram, count in Counter(grams(words, n)).items()
                    }

                own, theirs = weights(text), weights(reference)
                norms = math.hypot(*own.values()) * math.hypot(*theirs.values())
                if norms:
                    shared = sum(min(own[gram], theirs.get(gram, 0)) * theirs.get(gram, 0) for gram in own)
                    longer = len(grams(text, 2)) - len(grams(reference, 2))
                    total += math.exp(-(longer**2) / (2 * 6**2)) * shared / norms / 4 / len(several)
        scores.append(10 * total)
    return scores


class TestCiderD:
    def test_is_the_formula(self, made_up):
        predictions, references = made_up
        ids = list(predictions)[:25]
        texts, groups = [predictions[i] for i in ids], [references[i] for i in ids]
        (found,) = CiderD().measure(captions(texts, groups))
        assert found.values == pytest.approx(naive_cider_d(texts, groups), abs=1e-9)
        assert found.value == pytest.approx(np.mean(found.values))

    def test_repeating_a_word_does_not_pay(self):
        groups = [["a dog runs home"], ["two cats sleep"], ["one red boat"]]
        once, often = (
            CiderD().measure(captions([text, "x", "y"], groups))[0].values[0]
            for text in ("a dog runs home", "dog dog dog dog")
        )
        assert once == pytest.approx(10)
        assert often < 2

    def test_identical_captions_are_ten(self):
        groups = [["a brown dog runs fast"], ["two grey cats sleep there"], ["one red boat sinks slowly"]]
        (found,) = CiderD().measure(captions([group[0] for group in groups], groups))
        assert found.values == pytest.approx(10)

    def test_one_photo_alone_says_that_it_has_no_meaning(self):
        (found,) = CiderD().measure(captions(["a dog"], [["a dog"]]))
        assert found.value == 0
        assert "one photo" in found.note

    def test_references_without_words(self):
        (found,) = CiderD().measure(captions(["a dog", "a cat"], [["."], ["!"]]))
        assert isinstance(found, Unavailable)
        assert "no reference has a word" in found.reason


def test_agrees_with_pycocoevalcap_called_directly(java, system, written, made_up):
    from pycocoevalcap.bleu.bleu import Bleu as TheirBleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    predictions = system | made_up[0]
    references = written | made_up[1]
    try:
        truth = PTBTokenizer().tokenize(
            {id_: [{"caption": text} for text in texts] for id_, texts in references.items()}
        )
        found = PTBTokenizer().tokenize({id_: [{"caption": text}] for id_, text in predictions.items()})
    except OSError:
        pytest.skip("pycocoevalcap cannot write into its folder here")
    scores = score(predictions, references, metrics=["bleu", "rouge_l", "cider_d"])
    assert scores.tokenizer == "stanford"
    expected = {}
    values, own = TheirBleu(4).compute_score(truth, found, verbose=0)
    for n in range(4):
        expected[f"bleu_{n + 1}"] = values[n], own[n]
    expected["rouge_l"] = Rouge().compute_score(truth, found)
    expected["cider_d"] = Cider().compute_score(truth, found)
    assert set(scores.metrics) == set(expected)
    for name, (value, each) in expected.items():
        assert scores.metrics[name].value == pytest.approx(value, abs=1e-6)
        assert scores.columns[name].values == pytest.approx(each, abs=1e-6)
        assert scores.metrics[name].low < value < scores.metrics[name].high


@pytest.fixture
def without_package(monkeypatch):
    """As if pycocoevalcap were not installed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name.startswith("pycocoevalcap"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_without_the_package_a_metric_that_is_asked_for_says_what_to_install(
    without_package, system, written
):
    for name in ("bleu_4", "rouge_l", "meteor", "cider_d", "spice"):
        with pytest.raises(ConfigError, match=r"pip install 'promptfuse\[eval\]'"):
            score(system, written, metrics=[name])


def test_without_the_package_the_rest_is_computed(without_package, system, written):
    scores = score(system, written)
    assert scores.tokenizer == "python"
    assert "promptfuse[eval]" in scores.metrics["cider_d"].reason
    assert scores.metrics["words"].value > 4
    assert scores.metrics["distinct_1"].value > 0.3

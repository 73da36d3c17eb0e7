"""Words that a text's features ask for: against a sum over whole words done by hand, and in searches."""

from __future__ import annotations

import math

import pytest
import torch

import promptfuse as pf
from promptfuse.objectives.lexicon import lexicon, lexicon_words
from promptfuse.search.methods.word_prior import WordPrior, spellings
from tests.conftest import lexicon_of

TARGET = "A brown dog runs on the beach."


@pytest.fixture(scope="module", autouse=True)
def words():
    with lexicon_of(6000):
        yield


@pytest.fixture(scope="module")
def objective(words):
    lm, clip = pf.load_model("mini-lm"), pf.load_model("mini-clip")
    return pf.Objective(pf.Fluency(lm), pf.TextSimilarity(clip, TARGET, weight=20.0))


def test_scores_of_a_words_tokens_add_up_to_the_share_that_the_target_gives_it(objective):
    prior = WordPrior(objective, objective.primary, 2.0)
    words = list(lexicon_words())
    features = lexicon(objective.terms["text"].model).features
    cosines = features @ objective.terms["text"].features
    likely = 2.0 * cosines / cosines.std()
    shares = torch.tensor(list(lexicon_words().values()))
    expected = torch.logsumexp(shares + likely, 0)
    lm = objective.primary
    checked = 0
    for word in ("dog", "beach", *words[-20:]):
        before = tuple(lm.plain_ids(["The man"])[0])
        ids = tuple(lm.plain_ids([f"The man {word}"])[0])[len(before) :]
        total = sum(float(prior.scores([(*before, *ids[:at])])[0, ids[at]]) for at in range(len(ids)))
        # All words that begin with these tokens, of which the word is one, by hand.
        tree = spellings(lm)
        below = tree.words[tree.owners == tree.nodes[ids]]
        assert words.index(word) in below.tolist()
        mean = torch.logsumexp((shares + likely)[below], 0) - torch.logsumexp(shares[below], 0) - expected
        assert total == pytest.approx(float(mean), abs=1e-4)
        checked += len(ids) > 1
    assert checked, "none of the words has several tokens"


def test_the_words_of_the_target_come_first(objective):
    prior = WordPrior(objective, objective.primary, 2.0)
    words = list(lexicon_words())
    best = {words[index] for index in (prior.log_shares + prior.likelihoods).topk(100).indices}
    assert {"dog", "beach", "brown"} <= best


def test_a_word_that_is_there_has_no_advantage(objective):
    prior = WordPrior(objective, objective.primary, 2.0)
    lm = objective.primary
    (before,) = lm.plain_ids(["The"])
    (row,) = lm.plain_ids(["The dog"])
    (dog,) = row[len(before) :]
    assert float(prior.scores([before])[0, dog]) > 0
    assert float(prior.scores([row])[0, dog]) <= 0


def test_a_negative_weight_turns_the_words_around(objective):
    lm, clip = objective.primary, objective.terms["text"].model
    away = pf.Objective(pf.Fluency(lm), pf.TextSimilarity(clip, TARGET, weight=-20.0))
    there, back = WordPrior(objective, lm, 2.0), WordPrior(away, lm, 2.0)
    torch.testing.assert_close(there.likelihoods, -back.likelihoods)


def test_an_objective_that_compares_with_nothing_is_refused():
    with pytest.raises(pf.ConfigError, match="word_prior: the objective compares the text with nothing"):
        pf.Search(pf.Fluency(pf.load_model("mini-lm")), pf.AutoDAN(4, word_prior=2.0))


@pytest.mark.parametrize("value", [-1, 101, math.nan])
def test_strengths_out_of_range_are_refused(value):
    with pytest.raises(pf.ConfigError, match="word_prior"):
        pf.AutoDAN(word_prior=value)


def test_a_search_with_it_comes_nearer_than_without(objective):
    lm, clip = objective.primary, objective.terms["text"].model
    sums = {0.0: 0.0, 1.2: 0.0}
    for target in (TARGET, "Two children ride their bicycles past a red bus.", "A pizza with cheese."):
        judged = pf.Objective(pf.Fluency(lm), pf.TextSimilarity(clip, target, weight=40.0))
        for strength in sums:
            method = pf.AutoDAN(2, transport="none", word_prior=strength)
            found = pf.Search(judged, method, pf.BeamSearch(2), steps=8, complete=False).run()
            assert found.value == pytest.approx(judged.exact(found.text).value, abs=1e-4)
            sums[strength] += found.terms["text"]
    assert sums[1.2] < 0.8 * sums[0.0]

"""Gibbs sampling: each choice is the best of the candidates by the definition, computed from scratch."""

import math

import pytest
import torch

from promptfuse.evaluation.recipes.gibbs import GibbsSampler
from promptfuse.search.scheduler import BatchScheduler
from tests.evaluation.recipes.conftest import quick

FEW = {"length": 5, "sweeps": 2, "top_k": 6}


def definition(sampler, objective, texts, length):
    """The ranking of texts of equal length by the definition, from exact values."""
    recipe = sampler.recipe
    found = [objective.exact(text).terms for text in texts]
    length_normalizer = float(objective.terms["fluency"].length_normalizer(torch.tensor(float(length))))
    likelihood = [-one["fluency"] / length_normalizer / recipe.prior_temperature for one in found]
    match = [sampler.matcher.scale * (1 - one["image"]) for one in found]
    if recipe.sentiment:
        tone = [-objective.terms["sentiment"].weight * one["sentiment"] for one in found]
    else:
        tone = [-math.inf] * len(texts)

    def shares(scores):
        top = max(scores)
        whole = [math.exp(score - top) if top > -math.inf else 0.0 for score in scores]
        return [one / (sum(whole) or 1) for one in whole]

    columns = zip(shares(likelihood), shares(match), shares(tone), strict=True)
    return [recipe.alpha * a + recipe.beta * b + recipe.gamma * c for a, b, c in columns]


@pytest.mark.parametrize("sentiment", [None, "negative"])
def test_every_choice_is_the_best_by_the_definition(photos, sentiment):
    describer = quick("gibbs", alpha=1.5, sentiment=sentiment, **FEW)
    objective = describer.objective(photos[0])
    sampler = GibbsSampler(objective, "", describer.recipe)
    row = sampler.draft(torch.Generator().manual_seed(1))
    for position in (0, 3, 4, 1):
        rows, texts = sampler.candidates(row, position)
        assert row in rows
        assert len(set(texts)) == len(texts) == len(rows)
        assert all(len(one) == 5 for one in rows)
        (ids,) = sampler.language.lm.plain_ids([texts[0]])
        expected = definition(sampler, objective, texts, len(ids))
        assert sampler.scores(rows, texts).tolist() == pytest.approx(expected, abs=1e-3)
        row = sampler.visit(row, position)
        assert expected[rows.index(row)] == pytest.approx(max(expected), abs=1e-3)


def test_the_prior_is_the_conditional_distribution_of_the_position(photos):
    # Over all candidates, p(v | the other tokens) of the language model, and not p(v | those on the left).
    describer = quick("gibbs", alpha=1, beta=0, **FEW)
    objective = describer.objective(photos[0])
    sampler = GibbsSampler(objective, "", describer.recipe)
    row = sampler.draft(torch.Generator().manual_seed(2))
    rows, texts = sampler.candidates(row, 2)
    lm = sampler.language.lm
    logs = []
    for one in rows:
        ids = torch.tensor([[*lm.start_ids, *one, sampler.stop]])
        with torch.no_grad():
            scores = lm.module(input_ids=ids).logits[0, :-1].log_softmax(-1)
        logs.append(scores.gather(1, ids[0, 1:, None]).sum())
    expected = torch.stack(logs).softmax(0)
    assert torch.allclose(sampler.scores(rows, texts), expected, atol=1e-4)


def test_a_start_from_nothing_appends(photos):
    describer = quick("gibbs", sweeps=1, length=4, top_k=4)
    objective = describer.objective(photos[0])
    sampler = GibbsSampler(objective, "", describer.recipe)
    row: list[int] = []
    for position in range(4):
        row = sampler.visit(row, position)
        assert len(row) == position + 1
    assert describer(photos[0]).text == sampler.text(row)


def test_captions_have_the_length_and_end(photos):
    for start in ("empty", "draft"):
        found = quick("gibbs", start=start, **FEW)(photos[1], seed=4)
        (ids,) = quick("gibbs").captioner.model("lm").plain_ids([found.text])
        assert len(ids) == 6
        assert found.text.endswith(".")
        assert not any(mark in found.text[:-1] for mark in ".!?")
        assert found.complete


def test_a_further_sweep_never_ends_worse(photos):
    values = [
        quick("gibbs", alpha=1.5, length=5, sweeps=sweeps, top_k=6)(photos[2], seed=1).value
        for sweeps in (1, 2, 3)
    ]
    assert values[1] <= values[0] + 1e-6
    assert values[2] <= values[1] + 1e-6


def test_a_sentence_that_nothing_changes_ends_the_sweeps(photos):
    few, many = (
        quick("gibbs", length=3, top_k=3, order="sequential", sweeps=sweeps)(photos[0]) for sweeps in (8, 200)
    )
    assert (few.text, few.exact_evaluations) == (many.text, many.exact_evaluations)


@pytest.mark.slow
def test_same_seed_same_caption_in_any_company(photos):
    describer = quick("gibbs", start="draft", alpha=1.5, **FEW)
    alone = [describer(photo, seed=number) for number, photo in enumerate(photos[:3])]
    torch.manual_seed(5)
    found = {}

    def worker(number):
        found[number] = describer(photos[number], seed=number)

    BatchScheduler().run([lambda number=number: worker(number) for number in range(3)])
    assert [found[number].text for number in range(3)] == [caption.text for caption in alone]
    assert [found[number].value for number in range(3)] == [caption.value for caption in alone]


def test_a_prefix_stays(photos):
    found = quick("gibbs", prefix="A photo of", **FEW)(photos[0])
    assert found.text.startswith("A photo of ")

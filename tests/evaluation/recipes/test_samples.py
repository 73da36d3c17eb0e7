"""Best of N: the right distribution, the best of what was drawn, the same for the same seed."""

import pytest
import torch

from promptfuse.errors import ConfigError
from promptfuse.evaluation.recipes import load_recipe
from promptfuse.evaluation.recipes.decoding import Language
from promptfuse.evaluation.recipes.samples import _choose, sample
from promptfuse.search.scheduler import BatchScheduler
from tests.evaluation.recipes.conftest import quick


def test_choose_follows_the_distribution():
    probabilities = torch.tensor([[0.5, 0.0, 0.3, 0.2]]).expand(4000, 4)
    drawn = _choose(probabilities, 1.0, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=4) / 4000
    assert torch.allclose(shares, probabilities[0], atol=0.03)
    assert shares[1] == 0


def test_choose_keeps_to_the_nucleus():
    probabilities = torch.tensor([[0.2, 0.5, 0.3, 0.0]]).expand(2000, 4)
    drawn = _choose(probabilities, 0.6, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=4) / 2000
    # 0.5 does not reach 0.6, with 0.3 it does.
    assert torch.allclose(shares, torch.tensor([0.0, 0.625, 0.375, 0.0]), atol=0.04)
    assert set(_choose(probabilities, 0.4, torch.Generator()).tolist()) == {1}


def test_choose_never_takes_what_has_no_probability():
    probabilities = torch.zeros(3, 6)
    probabilities[:, 2] = 1e-20
    assert _choose(probabilities, 1.0, torch.Generator()).tolist() == [2, 2, 2]


@pytest.fixture(scope="module")
def language(photos):
    describer = quick("best-of-n")
    return Language(describer.objective(photos[0]), "")


def test_samples_are_what_a_naive_loop_draws(language):
    lm = language.lm
    rows = sample(language, 6, 8, torch.Generator().manual_seed(5), temperature=0.8)
    generator = torch.Generator().manual_seed(5)
    naive: list[list[int]] = [[] for _ in range(6)]
    alive = list(range(6))
    for step in range(8):
        scores = lm.next_log_probabilities([naive[number] for number in alive], reuse=False)
        allowed = language.usable if step else language.inner
        chances = (scores.masked_fill(~allowed, -torch.inf) / 0.8).softmax(-1)
        points = torch.rand(len(alive), 1, generator=generator)
        for place, number in enumerate(list(alive)):
            total = chances[place].cumsum(0)
            token = int((total > points[place] * total[-1]).nonzero()[0])
            naive[number].append(token)
            if bool(language.stops[token]):
                alive.remove(number)
        if not alive:
            break
    assert rows == naive


@pytest.mark.slow
def test_the_best_of_the_samples_is_chosen(photos):
    # With so much weight on fluency the two do not agree on all photos.
    describer, other = (quick(name, count=40, fluency_weight=6) for name in ("best-of-n", "best-of-n-image"))
    differ = 0
    for photo in photos[:3]:
        objective = describer.objective(photo)
        language = Language(objective, "")
        texts = describer._readable(language, describer.draw(language, 7))
        assert all(texts.values())
        by_value = min(texts, key=lambda text: objective.exact(text).value)
        by_image = min(texts, key=lambda text: objective.exact(text).terms["image"])
        found = describer(photo, seed=7)
        assert (found.text, found.exact_evaluations, found.complete) == (by_value, len(texts), True)
        assert found.value == objective.exact(by_value).value
        assert other(photo, seed=7).text == by_image
        differ += by_value != by_image
    assert differ


@pytest.mark.slow
def test_same_seed_same_caption_in_any_company(photos):
    describer = quick("best-of-n", count=24)
    alone = [describer(photo, seed=number) for number, photo in enumerate(photos[:3])]
    torch.manual_seed(123)
    found = {}

    def worker(number):
        found[number] = describer(photos[number], seed=number)

    BatchScheduler().run([lambda number=number: worker(number) for number in range(3)])
    assert [found[number] for number in range(3)] == alone
    other = describer(photos[0], seed=99)
    assert other.text != alone[0].text


def test_the_global_generator_is_left_alone(photos):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    quick("best-of-n", count=4)(photos[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_cut_off_are_taken_only_where_all_are(photos):
    found = quick("best-of-n", count=4, steps=2)(photos[0])
    assert found.text.strip()
    assert not found.complete


def test_a_prefix_is_what_every_sample_begins_with(photos):
    found = quick("best-of-n", count=16, prefix="Two dogs")(photos[0])
    assert found.text.startswith("Two dogs ")


def test_sentiment_by_the_objective_or_not_at_all(photos):
    found = quick("best-of-n", count=12, sentiment="negative")(photos[0])
    assert "sentiment" in found.terms
    with pytest.raises(ConfigError, match="by: objective"):
        load_recipe("best-of-n-image", sentiment="positive").build()


def test_each_photo_takes_its_own_part_of_a_pool(photos):
    describer = quick("best-of-n", count=6, pool=10, steps=6)
    language = Language(describer.objective(photos[0]), "")
    first, second = describer.draw(language, 1), describer.draw(language, 2)
    whole = quick("best-of-n", count=10, pool=10, steps=6).draw(language, 0)
    assert len(first) == len(second) == 6
    assert first != second
    assert all(whole.count(row) >= rows.count(row) for rows in (first, second) for row in rows)
    assert (
        first
        == describer.draw(language, 1)
        == quick("best-of-n", count=6, pool=10, steps=6).draw(language, 1)
    )
    with pytest.raises(ConfigError, match="pool: 5 must be at least 6"):
        quick("best-of-n", count=6, pool=5)

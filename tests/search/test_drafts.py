"""Automatic weights of growing texts: what drafts of the language model make of each term."""

from __future__ import annotations

from statistics import median

import pytest
import torch

import promptfuse as pf
from promptfuse.models import disable_prefix_cache
from promptfuse.search.drafts import automatic_weights, drafts, spread

GROWING = {"method": pf.AutoDAN(4), "strategy": pf.BeamSearch(2), "steps": 6}


def naive_scale(losses: list[float]) -> float:
    """By the definition: the median less the best."""
    return median(losses) - min(losses)


@pytest.fixture(scope="module")
def objective() -> pf.Objective:
    lm, clip = pf.load_model("mini-lm"), pf.load_model("mini-clip")
    return pf.Objective(
        pf.Fluency(lm), pf.TextSimilarity(clip, "Two dogs run on a beach.", name="dogs", weight=3.0)
    )


def test_spread_by_hand():
    losses = torch.tensor([5.0, 1.0, 2.0, 8.0, 3.5, 6.0, 17.0, 4.0]).double()
    assert spread(losses) == pytest.approx(4.5 - 1.0)
    assert spread(losses, lower=False) == pytest.approx(17.0 - 4.5)
    assert spread(torch.full((9,), 2.0)) is None


def test_drafts_are_whole_texts_with_their_own_likelihood(objective):
    found = drafts(objective)
    fluency = objective.terms["fluency"]
    assert len(found) > 40
    assert len({one.text for one in found}) == len(found)
    ended = [one for one in found if len(one.ids) < 20]
    assert len(ended) > len(found) / 2
    assert all(one.text.endswith((".", "!", "?")) or len(one.ids) == 20 for one in found[:20])
    for one in found[:8]:
        predicted = fluency.exact(one.text)
        assert one.nll / len(one.ids) == pytest.approx(predicted, abs=1e-4)


def test_weights_are_those_of_the_naive_path(objective):
    texts = [one.text for one in drafts(objective)]
    exact = {name: [term.exact(text) for text in texts] for name, term in objective.terms.items()}
    scales = {name: naive_scale(losses) for name, losses in exact.items()}
    expected = {"fluency": 1.0, "dogs": 0.7 * scales["fluency"] / scales["dogs"]}
    assert automatic_weights(objective) == pytest.approx(expected, rel=1e-3)
    assert pf.optimize(objective, **GROWING, weights="auto").weights == automatic_weights(objective)


def test_a_loss_in_other_units_gives_the_same_texts(objective):
    dogs = objective.terms["dogs"]
    found = {}
    for unit in (1.0, 250.0):
        loss = pf.BlackBox(lambda text, unit=unit: unit * dogs.exact(text), name="dogs", weight=1 / unit**2)
        found[unit] = pf.optimize([objective.terms["fluency"], loss], **GROWING, weights="auto")
    one, many = found.values()
    assert one.text == many.text
    assert one.weights["dogs"] == pytest.approx(250 * many.weights["dogs"], rel=1e-3)
    fixed = pf.optimize(
        [objective.terms["fluency"], pf.BlackBox(lambda text: 250 * dogs.exact(text), name="dogs")], **GROWING
    )
    assert fixed.text != many.text  # What happens without automatic weights.


def test_a_weight_below_0_is_measured_on_the_other_side(objective):
    dogs = pf.TextSimilarity(pf.load_model("mini-clip"), "Two dogs run on a beach.", name="dogs", weight=-1.0)
    away = pf.Objective(objective.terms["fluency"], dogs)
    texts = [one.text for one in drafts(away)]
    scale = naive_scale([-dogs.exact(text) for text in texts])
    unit = naive_scale([objective.terms["fluency"].exact(text) for text in texts])
    assert automatic_weights(away)["dogs"] == pytest.approx(-0.7 * unit / scale, rel=1e-3)


def test_nothing_but_the_models_and_the_prefix_changes_them(objective):
    expected = automatic_weights(objective)
    for settings in ({"seed": 5}, {"batch_size": 3}, {"constraints": pf.Constraints(max_words=3)}):
        assert pf.optimize(objective, **GROWING, weights="auto", **settings).weights == expected
    lm = objective.primary
    lm.clear_cache()
    with disable_prefix_cache():
        assert automatic_weights(objective) == pytest.approx(expected, rel=1e-4)
    assert automatic_weights(objective, "Two cats") != expected
    assert all(one.text.startswith("Two cats") for one in drafts(objective, "Two cats"))


def test_factors_multiply_them_and_survive_a_stop(objective, tmp_path):
    expected = automatic_weights(objective)
    for given in ({"dogs": 2}, {"dogs": "2x"}):
        search = pf.Search(objective, **GROWING, weights=given, run_dir=tmp_path / str(given["dogs"]))
        search.step()
        search.step()
        resumed = pf.Search(
            objective, **GROWING, weights={"dogs": "2x"}, run_dir=tmp_path / str(given["dogs"])
        )
        result = resumed.run()
        assert result.weights == {"fluency": 1.0, "dogs": 2 * expected["dogs"]}
        assert result.text == search.run().text


@pytest.mark.parametrize("given", ["x", "0x", "-2x", "two", ""])
def test_what_is_no_factor_is_refused(objective, given):
    with pytest.raises(pf.ConfigError, match=r"weights: dogs: .*(give e.g. 3.5, auto or 2x|above 0)"):
        pf.Search(objective, **GROWING, weights={"dogs": given})


def test_without_a_fluency_each_loss_has_its_own_scale():
    lm = pf.load_model("mini-lm")
    terms = [
        pf.TargetContinuation(lm, " on the beach."),
        pf.BlackBox(lambda text: len(text) / 7, name="length"),
    ]
    objective = pf.Objective(*terms)
    lengths = [len(one.text) / 7 for one in drafts(objective)]
    assert automatic_weights(objective)["length"] == pytest.approx(1 / naive_scale(lengths), rel=1e-6)

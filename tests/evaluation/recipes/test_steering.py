"""Classifiers' labels in recipes: the same terms as in the caption task."""

import pytest

import promptfuse as pf
from promptfuse.errors import ConfigError
from promptfuse.evaluation.recipes import describe, load_recipe
from tests.evaluation.recipes.conftest import quick

STEER = ["mini-tone:negative=3", "sentiment:positive=-0.5"]
FEW = {"steps": 4, "beams": 2, "candidates": 5}


@pytest.mark.slow
def test_the_search_is_steered_as_in_the_caption_task(photos):
    found = quick("ours", steer=STEER, **FEW)(photos[0])
    result = pf.caption(photos[0], steer=STEER, **FEW)
    assert found.text == result.text
    assert found.weights == result.weights
    assert found.weights["steer:negative"] == 3
    assert found.terms == pytest.approx(result.terms, abs=1e-5)


def test_samples_are_picked_by_the_steered_objective(photos):
    few = {"count": 48, "steps": 6}
    found = quick("best-of-n", steer=["mini-tone:negative=50"], **few)(photos[0])
    plain = quick("best-of-n", **few)(photos[0])
    judge = pf.ClassProbability(quick("ours", steer=STEER).captioner.model("sentiment"), "negative")
    assert found.terms["steer:negative"] == pytest.approx(judge.exact(found.text), abs=1e-5)
    assert judge.exact(found.text) < judge.exact(plain.text)


def test_it_is_part_of_the_description_if_it_is_given():
    assert describe(load_recipe("ours", steer=STEER))["steer"] == STEER
    assert "steer" not in describe(load_recipe("ours"))


def test_what_is_refused():
    with pytest.raises(ConfigError, match=r"steer.*needs a model and a label; write MODEL:LABEL=WEIGHT"):
        load_recipe("ours", steer=["positive"])
    with pytest.raises(ConfigError, match="no label 'grumpy'; choose from: negative, neutral, positive"):
        quick("ours", steer=["mini-tone:grumpy"])
    with pytest.raises(ConfigError, match="samples picked by the image alone have none"):
        load_recipe("best-of-n-image", steer=STEER).build()

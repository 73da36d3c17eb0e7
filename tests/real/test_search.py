"""Searches with a real language model and a real encoder of another tokenizer."""

from __future__ import annotations

import json

import pytest

from promptfuse.models import load_model
from promptfuse.objectives import Fluency, Objective, TextSimilarity
from promptfuse.search import AutoDAN, BeamSearch, Search
from tests.real.packages import needs

TARGET = "Children are playing football in the park."
BOTH = [needs("smollm2", "minilm")]
TWO = ("lm_name", "encoder_name")


def make(
    lm_name: str, encoder_name: str, transport: str = "lexical", candidates: int = 8, **options
) -> Search:
    lm, encoder = load_model(lm_name), load_model(encoder_name)
    objective = Objective(Fluency(lm), TextSimilarity(encoder, TARGET, weight=30))
    method = AutoDAN(candidates, transport=transport)
    return Search(objective, method, BeamSearch(2), steps=4, **options)


@pytest.mark.parametrize(TWO, BOTH)
def test_the_gradient_finds_better_texts_than_the_language_model_alone(
    lm_name: str, encoder_name: str
) -> None:
    with_gradient = make(lm_name, encoder_name).run()
    without = make(lm_name, encoder_name, transport="none").run()
    assert with_gradient.value < without.value - 1


@pytest.mark.parametrize(TWO, BOTH)
def test_the_reported_value_is_that_of_the_text_and_a_seed_gives_one_text(
    lm_name: str, encoder_name: str
) -> None:
    whole = make(lm_name, encoder_name).run()
    search = make(lm_name, encoder_name)
    assert whole.value == pytest.approx(search.objective.exact(whole.text).value, abs=1e-3)
    search.batch_size = 3
    search.step()
    saved = json.loads(json.dumps(search.state_dict()))
    resumed = make(lm_name, encoder_name)
    resumed.load_state_dict(saved)
    result = resumed.run()
    assert result.text == whole.text
    assert result.value == pytest.approx(whole.value, abs=1e-3)
    assert make(lm_name, encoder_name, exact=True).run().text == whole.text

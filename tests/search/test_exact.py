"""What is remembered and how texts are batched never changes a search's result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

import promptfuse as pf
from promptfuse.search import AutoDAN, BeamSearch, Search
from tests.fast_paths import needs_fast


def run(model: Callable[..., Any], **changes: Any) -> Search:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    objective = pf.Objective(
        pf.Fluency(model("gpt2")),
        pf.ImageSimilarity(model("clip"), photo, prefix="An image of "),
        pf.Fluency(model("llama"), 0.3, suffix=" in the park", name="second"),
        pf.ClassProbability(model("bert"), "positive"),
    )
    settings = {"prefix": "A brown", "steps": 6, "patience": 6} | changes
    search = Search(objective, AutoDAN(candidates=12), BeamSearch(3), **settings)
    search.run()
    return search


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {"batch_size": 1}, {"batch_size": 5}, {"exact": True, "batch_size": 1}]
)
def test_the_result_is_that_of_reading_everything_whole(
    changes: dict[str, Any], model: Callable[..., Any]
) -> None:
    slow, fast = run(model, exact=True), run(model, **changes)
    assert fast.result().text == slow.result().text
    assert fast.result().value == pytest.approx(slow.result().value, abs=1e-4)
    for one, other in zip(fast.history, slow.history, strict=True):
        assert [beam.text for beam in one.beams] == [beam.text for beam in other.beams]
        for beam, whole in zip(one.beams, other.beams, strict=True):
            assert beam.terms == pytest.approx(whole.terms, abs=1e-4)
            assert beam.terms == pytest.approx(fast.objective.exact(beam.text).terms, abs=1e-4)


@needs_fast
def test_an_exact_search_remembers_nothing(model: Callable[..., Any]) -> None:
    lm, clip = model("gpt2"), model("clip")
    run(model)
    assert len(lm.reader.cache)
    assert len(clip.reader.cache)
    lm.clear_text_cache()
    clip.clear_text_cache()
    run(model, exact=True)
    assert not len(lm.reader.cache)
    assert not len(clip.reader.cache)

"""Searches for a text behind which a model goes on with what is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import promptfuse as pf
from tests.search.conftest import FREE


@pytest.fixture
def wanting(lookup_models: Any) -> Callable[..., pf.Objective]:
    """Objectives of a model that is a table of what follows what: behind "red" it says "fox ."."""
    lm = pf.load_model(lookup_models[0])

    def make(*targets: str, **settings: Any) -> pf.Objective:
        return pf.Objective([pf.TargetContinuation(lm, target, **settings) for target in targets])

    return make


def search_of(objective: pf.Objective, **settings: Any) -> pf.Search:
    method = pf.RandomSearch(length=3, candidates=6)
    options = {"steps": 40, "patience": 40, "constraints": FREE, "seed": 1} | settings
    return pf.Search(objective, method, pf.Greedy(), **options)


def test_an_early_stop_ends_at_the_first_match(wanting: Callable[..., pf.Objective]) -> None:
    objective = wanting(" fox .")
    search = search_of(objective, early_stop=True)
    term = objective.terms["target"]
    for step in search:
        assert (term.matched(step.best.text) is not None) == search.done
    result = search.result()
    assert 0 < len(result.history) < 40
    assert result.continuations["target"].matched == " fox ."
    assert objective.exact(result.text).value == pytest.approx(result.value)
    assert result.to_dict()["continuations"]["target"]["matches"] is True
    assert "the model continues with ' fox" in repr(result)
    assert "which matches ' fox .'" in repr(result)
    # Without it the search goes on for all its steps.
    assert len(search_of(objective).run().history) == 40


def test_all_targets_have_to_match(wanting: Callable[..., pf.Objective]) -> None:
    both = wanting(" fox .", " dog .")
    result = search_of(both, early_stop=True, steps=6).run()
    assert len(result.history) == 6
    assert list(result.continuations) == ["target", "target_2"]
    assert sum(found.matches for found in result.continuations.values()) < 2
    # Two that one text can have.
    assert len(search_of(wanting(" fox", " fox ."), early_stop=True).run().history) < 40


def test_an_early_stop_needs_a_target(wanting: Callable[..., pf.Objective], puzzle: Any) -> None:
    for objective in (puzzle.objective, wanting(" fox .", weight=-1.0)):
        with pytest.raises(pf.ConfigError, match="early_stop: it needs a term with a target"):
            search_of(objective, early_stop=True)


def test_an_early_stop_in_a_run_folder(wanting: Callable[..., pf.Objective], tmp_path: Any) -> None:
    objective = wanting(" fox .")
    whole = search_of(objective, early_stop=True).run()
    begun = search_of(objective, early_stop=True, run_dir=tmp_path)
    begun.step()
    resumed = search_of(objective, early_stop=True, run_dir=tmp_path)
    resumed.run()
    assert (resumed.result().text, len(resumed.history)) == (whole.text, len(whole.history))
    assert search_of(objective, early_stop=True, run_dir=tmp_path).done
    # It may go on to its last step all the same.
    assert len(search_of(objective, run_dir=tmp_path).run().history) == 40

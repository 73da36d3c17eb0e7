"""Searches that are stopped by hand, results that are shown, and arguments of a wrong kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import promptfuse as pf
from tests.search.killing import make_search, summary


@pytest.mark.parametrize("answer", [True, np.bool_(True)])
def test_a_callback_that_returns_true_stops_the_search(puzzle, answer):
    seen: list[int] = []

    def third(search: pf.Search, step: pf.Step) -> Any:
        seen.append(step.number)
        return answer if step.number == 3 else "go on"  # Nothing but a true value stops it.

    search = make_search(puzzle.objective, "gcg", "beam", callbacks=third)
    result = search.run()
    assert (seen, len(result.history)) == ([1, 2, 3], 3)
    assert search.done


def test_a_search_that_was_stopped_goes_on_from_its_folder(puzzle, tmp_path):
    stopped = make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path)
    for step in stopped:
        if step.number == 2:
            stopped.stop()
    assert len(stopped.history) == 2
    resumed = make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path)
    resumed.run()
    whole = make_search(puzzle.objective, "gcg", "beam")
    whole.run()
    assert summary(resumed) == summary(whole)


def test_a_result_is_shown_in_a_few_lines(puzzle):
    result = make_search(puzzle.objective, "gcg", "beam").run()
    shown = repr(result)
    assert len(shown) < 500
    assert shown.count("\n") <= 4
    for part in (repr(result.text), f"value {result.value:.3f}", "fluency", "steps"):
        assert part in shown
    assert "history" not in shown


def test_terms_count_as_an_objective(puzzle):
    terms = list(puzzle.objective.terms.values())
    expected = pf.optimize(puzzle.objective, pf.RandomAppend(4), steps=3)
    for objective in (terms, tuple(terms), pf.Objective(terms), pf.Objective(*terms)):
        assert pf.optimize(objective, pf.RandomAppend(4), steps=3).value == expected.value
    assert pf.optimize(terms[0], pf.RandomAppend(4), steps=2).terms.keys() == {"fluency"}


WRONG = [
    ({"method": "GCG"}, r"method must be an object, not 'GCG'; write method=pf\.GCG\(\)"),
    ({"method": pf.GCG}, r"not the class GCG; write method=pf\.GCG\(\)"),
    ({"method": "hill climbing"}, r"method must be an object such as pf\.AutoDAN\(\), not 'hill climbing'"),
    ({"strategy": "beamsearch"}, r"write strategy=pf\.BeamSearch\(\)"),
    ({"strategy": 4}, r"strategy must be an object such as pf\.BeamSearch\(\), not 4"),
    ({"constraints": {"ascii": True}}, r"constraints must be an object such as pf\.Constraints\(\)"),
    ({"stopping": 16}, r"stopping must be an object such as pf\.Stopping\(\), not 16"),
    ({"steps": "16"}, "steps: '16' is not a whole number"),
    ({"steps": 2.5}, r"steps: 2\.5 is not a whole number"),
    ({"patience": True}, "patience: True is not a whole number"),
    ({"seed": "a"}, "seed: 'a' is not a whole number"),
    ({"batch_size": 1.5}, "batch size: 1.5 is not a whole number"),
    ({"prefix": 5}, "prefix: 5 is not a text"),
    ({"weights": 3}, "weights: 3 are not weights"),
    ({"weights": {"fluency": "much"}}, "weights: fluency: 'much' is not a number; give e.g. 3.5, auto or 2x"),
    ({"complete": "no"}, "complete: 'no' is neither True nor False"),
    ({"glue": None}, "glue: None is neither True nor False"),
    ({"run_dir": 5}, "run folder 5 is not a path"),
    ({"callbacks": 5}, "callbacks: 5 cannot be called; give functions"),
    ({"callbacks": [print, "x"]}, "callbacks: 'x' cannot be called; give functions"),
]


@pytest.mark.parametrize(("settings", "problem"), WRONG, ids=[str(settings)[:40] for settings, _ in WRONG])
def test_arguments_of_a_wrong_kind_are_named_with_the_remedy(puzzle, settings, problem):
    with pytest.raises(pf.ConfigError, match=problem) as raised:
        pf.optimize(puzzle.objective, **settings)
    assert "\n" not in str(raised.value)


def test_what_is_no_term_is_named(puzzle):
    model = puzzle.objective.primary
    for wrong, problem in (
        ("a dog", "'a dog' is not a term"),
        ([], "needs at least one term"),
        (None, "None is not a term"),
        (model, r"the model .* is not a term; say what it is to judge, e\.g\. Fluency"),
        (pf.Fluency, "the class Fluency is not a term"),
        ([puzzle.objective], "an objective is not a term"),
    ):
        with pytest.raises(pf.ConfigError, match=problem):
            pf.optimize(wrong)
    with pytest.raises(pf.ModelError, match=r"not 'gpt2'; write load_model\('gpt2'\)"):
        pf.Fluency("gpt2")
    with pytest.raises(pf.ModelError, match="not an object of GPT2LMHeadModel; write load_model"):
        pf.Fluency(model.module)
    with pytest.raises(pf.ConfigError, match="weight of fluency: 'much' is not a number"):
        pf.Fluency(model, "much")
    with pytest.raises(pf.ConfigError, match="target: 5 is not a text"):
        pf.TargetContinuation(model, 5)
    with pytest.raises(pf.ConfigError, match="seconds: 'long' is not a number"):
        pf.Stopping(seconds="long")


def test_one_text_is_no_list_of_its_letters(puzzle):
    objective, term = puzzle.objective, next(iter(puzzle.objective.terms.values()))
    for score in (objective.score, term.score):
        with pytest.raises(pf.TextError, match="'a dog' is one text; give a list of texts"):
            score("a dog")
    with pytest.raises(pf.TextError, match="5 is not a text; give a list of strings"):
        objective.score(["a dog", 5])
    for wrong in (["a dog"], 5, None):
        with pytest.raises(pf.TextError, match="is not a text; give a string"):
            objective.exact(wrong)
    for part in ("prefix", "suffix", "context"):
        with pytest.raises(pf.ConfigError, match=f"{part}.*: 5 is not a text"):
            pf.Fluency(objective.primary, **{part: 5})


def test_a_long_text_in_a_message_is_cut_short(puzzle):
    for settings in ({"method": pf.GCG(init="dog " * 300)}, {"prefix": "dog " * 300}):
        with pytest.raises(pf.TextError, match=r"dog\.\.\.'|\.\.\.'") as raised:
            pf.optimize(puzzle.objective, **settings, steps=1)
        assert len(str(raised.value)) < 400


def test_half_a_character_is_named(puzzle):
    half = "a \ud83d dog"
    for call in (
        lambda: puzzle.objective.exact(half),
        lambda: puzzle.objective.score([half]),
        lambda: pf.optimize(puzzle.objective, prefix=half, steps=1),
        lambda: pf.optimize(puzzle.objective, pf.GCG(init=half), steps=1),
        lambda: pf.Fluency(puzzle.objective.primary, context=half),
        lambda: pf.TargetContinuation(puzzle.objective.primary, half),
    ):
        with pytest.raises(pf.TextError, match=r"ud83d dog. is not valid Unicode"):
            call()

"""One text for several prompts, targets and models."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

import promptfuse as pf
from promptfuse.errors import ConfigError
from promptfuse.testing import WORDS, make_models
from tests.objectives.test_target import by_hand

PAIRS = [("Look:", " in the park."), ("", " and a small white cat")]


def test_it_is_the_mean_over_models_and_pairs(model: Callable[..., Any]) -> None:
    models = [model("gpt2"), model("llama")]
    objective = pf.Objective(pf.target_terms(models, PAIRS, 3.0))
    each = [by_hand(lm, f"{prompt} a dog".strip(), target) for lm in models for prompt, target in PAIRS]
    assert objective.exact("a dog").value == pytest.approx(3.0 * sum(each) / 4, abs=1e-5)
    assert list(objective.terms) == ["target", "target_2", "target_3", "target_4"]
    assert sum(objective.weights.values()) == pytest.approx(3.0)


def test_one_model_needs_no_list_and_losses_are_passed_on(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    (term,) = pf.target_terms(lm, PAIRS[:1], loss="mellowmax", alpha=5.0)
    other = pf.TargetContinuation(lm, PAIRS[0][1], prefix="Look: ", loss="mellowmax", alpha=5.0)
    assert term.describe() == other.describe()


def test_nothing_to_work_with(model: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="models: there are none"):
        pf.target_terms([], PAIRS)
    with pytest.raises(ConfigError, match="pairs: there are none"):
        pf.target_terms(model("gpt2"), [])


def test_gcg_finds_the_text_that_trying_all_finds(tmp_path: Any) -> None:
    """Two models that disagree about what follows what, each after two prompts."""
    plain, _ = make_models(tmp_path / "plain")
    trapped, _ = make_models(tmp_path / "trapped", trap=True)
    pairs = [("the old", " red fox"), ("a", " dog .")]
    objective = pf.Objective(pf.target_terms([plain, trapped], pairs), pf.Fluency(plain, weight=0.5))
    texts = [" ".join(words) for words in product(WORDS, repeat=3)]
    values = objective.totals(objective.score(texts))
    best = texts[int(values.argmin())]
    result = pf.optimize(
        objective,
        pf.GCG(init="runs the runs", top_k=6, batch=12, swaps=2, last_swaps=1, swap_steps=6),
        pf.Greedy(),
        constraints=pf.Constraints(no_repeat_ngram=0, no_repeated_word=False),
        stopping=pf.Stopping(steps=40, patience=40, value=float(values.min()) + 1e-4),
    )
    assert result.text == best
    assert result.value == pytest.approx(float(values.min()), abs=1e-4)

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from promptfuse.errors import ConfigError
from promptfuse.objectives import BlackBox, ClassProbability, Fluency, Objective
from promptfuse.search import AutoDAN, BeamSearch, Search


def vowels(text: str) -> float:
    return sum(letter in "aeiou" for letter in text) / 7


def test_it_is_what_the_function_says(score_is_exact: Any) -> None:
    term = BlackBox(vowels, prefix="(", suffix="oo)")
    assert term.exact("a dog") == 4 / 7
    score_is_exact(term)
    assert term.score(["a dog", "x"]).tolist() == [4 / 7, 2 / 7]


def test_a_function_of_lists_gets_them(score_is_exact: Any) -> None:
    asked: list[int] = []

    def many(texts: list[str]) -> torch.Tensor:
        asked.append(len(texts))
        return torch.tensor([vowels(text) for text in texts], dtype=torch.float64)

    term = BlackBox(many, batched=True)
    score_is_exact(term)
    asked.clear()
    term.score(["a"] * 7, batch_size=3)
    term.score(["a"] * 7)
    term.exact("a")
    assert asked == [3, 3, 1, 7, 1]


def test_there_is_neither_model_nor_gradient() -> None:
    term = BlackBox(len)
    assert not term.has_gradient
    assert not term.has_model
    term.check("dog " * 10_000)
    for call in (
        lambda: term.model,
        lambda: term.slot_gradient(["dog"], torch.zeros(1, 3), 1),
        lambda: term.losses(None),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match="the term blackbox"):
            call()


def test_terms_with_a_model_have_both(model: Callable[..., Any]) -> None:
    term = ClassProbability(model("bert"), "positive")
    assert term.has_gradient
    assert term.has_model


def test_descriptions_have_no_addresses(same_search: Any) -> None:
    class Judge:
        def __call__(self, text: str) -> float:
            return 0.0

    assert BlackBox(vowels).describe() == {
        "kind": "BlackBox", "weight": 1.0, "prefix": "", "suffix": "", "function": f"{__name__}.vowels",
        "batched": False,
    }  # fmt: skip
    assert same_search(BlackBox(Judge()), BlackBox(Judge()))
    assert not same_search(BlackBox(Judge()), BlackBox(vowels))


@pytest.mark.parametrize("answer", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(answer: float) -> None:
    for term in (BlackBox(lambda text: answer), BlackBox(lambda texts: [answer] * len(texts), batched=True)):
        for call in (term.exact, lambda text, term=term: term.score([text])):
            with pytest.raises(
                ConfigError, match=f"blackbox: the function gave {answer} for 'dog'; return a"
            ):
                call("dog")


@pytest.mark.parametrize("answer", [None, "x", [1.0]])
def test_answers_that_are_no_number_are_refused(answer: Any) -> None:
    with pytest.raises(ConfigError, match="for 'dog'; return a number"):
        BlackBox(lambda text: answer).exact("dog")


def test_other_faults(model: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="2 numbers for 1 texts"):
        BlackBox(lambda texts: [1.0, 2.0], batched=True).exact("dog")
    with pytest.raises(ConfigError, match="return a number"):
        BlackBox(lambda texts: 3.0, batched=True).exact("dog")
    with pytest.raises(ConfigError, match="str is not a function"):
        BlackBox("len")  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):  # the function's own error is the caller's to see
        BlackBox(lambda text: 1 / 0).exact("dog")


@pytest.mark.parametrize("weight", [3.0, -3.0])
def test_it_steers_a_search(weight: float, model: Callable[..., Any]) -> None:
    """Fewer vowels with a positive weight, more with a negative one, beside other terms of all kinds."""
    lm, tone = model("gpt2"), model("bert")

    def search(*terms: Any) -> Any:
        objective = Objective(Fluency(lm, 0.1), ClassProbability(tone, "positive", 0.1), *terms)
        return Search(objective, AutoDAN(candidates=16), BeamSearch(2), prefix="A dog", steps=4).run()

    found = search(BlackBox(vowels, weight))
    plain = search()
    rate = vowels(found.text) / len(found.text)
    plain_rate = vowels(plain.text) / len(plain.text)
    assert math.copysign(1, plain_rate - rate) == math.copysign(1, weight)
    assert found.terms["blackbox"] == vowels(found.text)
    assert found.value == pytest.approx(sum(found.weights[name] * loss for name, loss in found.terms.items()))
    assert set(found.models) == {"fluency", "class"}

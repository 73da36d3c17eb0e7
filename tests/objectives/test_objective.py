from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image

from promptfuse.errors import ConfigError, TextError
from promptfuse.objectives import (
    BlackBox,
    ClassProbability,
    Fluency,
    ImageSimilarity,
    Objective,
    TargetContinuation,
)

TEXTS = ("A brown dog runs.", "dog", "Two children are playing")


@pytest.fixture
def objective(model: Callable[..., Any]) -> Objective:
    return Objective(
        Fluency(model("gpt2"), 1.5),
        ImageSimilarity(model("clip"), Image.new("RGB", (64, 64), "red"), 22.0, prefix="An image of "),
        ClassProbability(model("bert"), "positive", -0.5),
    )


def test_it_is_shown_with_its_weights(objective):
    assert repr(objective) == "Objective(fluency x 1.5, image x 22, class x -0.5)"


def test_the_value_is_the_weighted_sum(objective: Objective) -> None:
    found = objective.exact("a dog")
    assert list(found.terms) == ["fluency", "image", "class"]
    assert found.terms == {name: term.exact("a dog") for name, term in objective.terms.items()}
    by_hand = 1.5 * found.terms["fluency"] + 22 * found.terms["image"] - 0.5 * found.terms["class"]
    assert found.value == pytest.approx(by_hand)
    assert objective.weights == {"fluency": 1.5, "image": 22.0, "class": -0.5}


@pytest.mark.parametrize("batch_size", [1, 256])
def test_totals_are_the_exact_values(batch_size: int, objective: Objective) -> None:
    losses = objective.score(TEXTS, batch_size=batch_size)
    totals = objective.totals(losses)
    assert totals.shape == (len(TEXTS),)
    for row, text in enumerate(TEXTS):
        exact = objective.exact(text)
        assert float(totals[row]) == pytest.approx(exact.value, abs=1e-4)
        for name in objective.terms:
            assert float(losses[name][row]) == pytest.approx(exact.terms[name], abs=1e-5)


def test_what_is_known_is_not_computed_again(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    known = torch.tensor([1.0, 2.0, 3.0])
    monkeypatch.setattr(objective.terms["fluency"], "score", None)
    losses = objective.score(TEXTS, known={"fluency": known})
    assert list(losses) == ["fluency", "image", "class"]
    assert torch.equal(losses["fluency"], known)


def test_terms_of_one_name_are_numbered(model: Callable[..., Any]) -> None:
    terms = [Fluency(model(name)) for name in ("gpt2", "llama", "opt")]
    objective = Objective(*terms, Fluency(model("qwen2"), name="fluency_2"))
    assert list(objective.terms) == ["fluency", "fluency_2", "fluency_3", "fluency_2_2"]
    assert list(objective.terms.values())[:3] == terms
    value = objective.exact("a dog")
    assert value.value == pytest.approx(sum(value.terms.values()))


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_an_empty_text_is_refused(text: str, objective: Objective) -> None:
    with pytest.raises(TextError, match="empty; give at least one word"):
        objective.exact(text)


def test_no_terms() -> None:
    with pytest.raises(ConfigError, match="at least one term"):
        Objective()


def test_the_primary_is_the_first_language_model(model: Callable[..., Any]) -> None:
    tone = ClassProbability(model("bert"), "positive")
    assert Objective(tone, Fluency(model("opt")), Fluency(model("gpt2"))).primary is model("opt")
    target = TargetContinuation(model("llama"), " dog")
    assert Objective(target, Fluency(model("opt"))).primary is model("opt")
    assert Objective(BlackBox(len), tone, target).primary is model("llama")
    with pytest.raises(ConfigError, match="add a Fluency term"):
        _ = Objective(tone).primary

"""The losses of a target: against numbers worked out token by token, on every path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from promptfuse.errors import ConfigError
from promptfuse.models import load_model
from promptfuse.objectives import TargetContinuation

MODELS = ("gpt2", "llama", "opt", "qwen2")
TARGETS = [" in the park.", " and a small white cat"]
LOSSES: dict[str, dict[str, Any]] = {
    "mellowmax": {"loss": "mellowmax"},
    "mellowmax, sharp": {"loss": "mellowmax", "alpha": 20.0},
    "cw": {"loss": "cw"},
    "cw, wide": {"loss": "cw", "margin": 3.0},
}


def logits_of(lm: Any, prompt: str, target: str) -> tuple[torch.Tensor, list[int]]:
    """Logits at each of the target's tokens, one prediction after the other, and the tokens."""
    ids = lm.tokenizer(prompt + target, add_special_tokens=False)["input_ids"]
    known = len(lm.tokenizer(prompt, add_special_tokens=False)["input_ids"])
    found = []
    for at in range(known, len(ids)):
        with torch.no_grad():
            found.append(lm.module(input_ids=torch.tensor([[*lm.start_ids, *ids[:at]]])).logits[0, -1])
    return torch.stack(found), ids[known:]


def by_hand(lm: Any, prompt: str, target: str, loss: str, alpha: float = 1.0, margin: float = 1e-3) -> float:
    logits, ids = logits_of(lm, prompt, target)
    if loss == "mellowmax":
        nll = torch.stack([-row.log_softmax(0)[token] for row, token in zip(logits, ids, strict=True)])
        return float((alpha * nll.double()).exp().mean().log() / alpha)
    leads = []
    for row, token in zip(logits, ids, strict=True):
        others = torch.cat([row[:token], row[token + 1 :]])
        leads.append(max(float(others.max() - row[token]), -margin))
    return sum(leads) / len(leads)


@pytest.mark.parametrize("settings", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("name", MODELS)
def test_losses_are_what_their_formulas_say(
    name: str, settings: dict[str, Any], model: Callable[..., Any], score_is_exact: Any
) -> None:
    lm = model(name)
    term = TargetContinuation(lm, TARGETS, prefix="Look: ", suffix=", it is", **settings)
    each = [by_hand(lm, "Look: a dog, it is", target, **settings) for target in TARGETS]
    assert term.exact("a dog") == pytest.approx(sum(each) / 2, abs=1e-5)
    assert term.exact("a dog") != pytest.approx(TargetContinuation(lm, TARGETS).exact("a dog"), abs=1e-3)
    score_is_exact(term)
    score_is_exact(TargetContinuation(lm, TARGETS[0], **settings))


@pytest.mark.parametrize("settings", [LOSSES["mellowmax"], LOSSES["cw, wide"]], ids=["mellowmax", "cw"])
@pytest.mark.parametrize("name", MODELS)
def test_gradients(
    name: str, settings: dict[str, Any], model: Callable[..., Any], slope_is_right: Any
) -> None:
    exactness = {"step": 1e-3, "rtol": 1e-2} if name in ("llama", "qwen2") else {}
    slope_is_right(
        TargetContinuation(model(name, torch.float64), TARGETS, prefix="Look: ", **settings), **exactness
    )


def test_a_text_that_is_shorter_than_its_parent_and_goes_on_like_it(model: Callable[..., Any]) -> None:
    """The target's tokens are then among those of the parent, whose NLL is known and whose lead is not."""
    lm = model("gpt2")
    term = TargetContinuation(lm, " dog runs.", loss="cw")
    (found,) = term.score(["A brown"], parents=["A brown dog runs. A"]).tolist()
    assert found == pytest.approx(term.exact("A brown"), abs=1e-5)


def test_mellowmax_lies_between_the_mean_and_the_largest(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    logits, ids = logits_of(lm, "A brown dog", TARGETS[0])
    nll = -logits.log_softmax(1).gather(1, torch.tensor(ids)[:, None])
    found = [
        TargetContinuation(lm, TARGETS[0], loss="mellowmax", alpha=alpha).exact("A brown dog")
        for alpha in (1e-3, 1.0, 1e3)
    ]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (
        pytest.approx(float(nll.mean()), abs=0.01),
        pytest.approx(float(nll.max()), abs=0.01),
    )


def test_cw_is_at_its_margin_once_the_model_says_the_target() -> None:
    lm = load_model("mini-lm")
    said = TargetContinuation(lm, " x").continuation("A brown dog").text
    said = " ".join(said.split(" ")[:4])
    term = TargetContinuation(lm, said, loss="cw")
    assert term.matched("A brown dog") == said
    assert term.exact("A brown dog") == pytest.approx(-1e-3, abs=1e-6)
    assert TargetContinuation(lm, said + " zebra", loss="cw").exact("A brown dog") > 0.1


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"loss": "hinge"}, r"loss: 'hinge' is unknown; choose nll, mellowmax, cw"),
        ({"loss": "mellowmax", "alpha": 0.0}, "alpha: 0.0 is out of range"),
        ({"loss": "cw", "margin": -1.0}, "margin: -1.0 is out of range"),
    ],
)
def test_losses_that_are_none(settings: Any, problem: str, model: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=problem):
        TargetContinuation(model("gpt2"), " in the park.", **settings)


def test_the_loss_is_described_where_it_is_not_the_usual_one(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    usual = TargetContinuation(lm, " in the park.").describe()
    assert not {"loss", "alpha", "margin"} & usual.keys()
    other = TargetContinuation(lm, " in the park.", loss="cw", margin=2.0).describe()
    assert other == {**usual, "loss": "cw", "margin": 2.0}


def test_a_chat_is_read_on_both_sides(model: Callable[..., Any]) -> None:
    """Prompt and text are the user's turn, the target is the answer: the tokens of the whole string."""
    plain = model("gpt2")
    lm = type(plain)(plain.module, plain.tokenizer, "chat", start="Q: {} A:")
    term = TargetContinuation(lm, " in the park.", prefix="Where is ", suffix="?")
    (row,), ((start, stop),) = term.rows(["a dog"])
    assert lm.tokenizer.decode(row[:start]).endswith("Q: Where is a dog? A:")
    assert lm.tokenizer.decode(row[start:stop]) == " in the park."
    other = model("llama")
    moved = term.under(type(other)(other.module, other.tokenizer, "other", start="[{}]"))
    (row,), ((start, stop),) = moved.rows(["a dog"])
    assert other.tokenizer.decode(row[:start]).endswith("[Where is a dog?]")
    assert (term.lm, moved.endings, moved.name) == (lm, term.endings, term.name)

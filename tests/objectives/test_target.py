from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from promptfuse.errors import ConfigError, ModelError, TextError
from promptfuse.models import load_model
from promptfuse.objectives import Fluency, Objective, TargetContinuation
from promptfuse.search import AutoDAN, BeamSearch, Search

MODELS = ("gpt2", "llama", "opt", "qwen2")
TARGETS = [" in the park.", " and a small white cat"]


def by_hand(lm: Any, prompt: str, target: str) -> float:
    """Mean NLL of the target's tokens, one prediction after the other."""
    ids = lm.tokenizer(prompt + target, add_special_tokens=False)["input_ids"]
    known = len(lm.tokenizer(prompt, add_special_tokens=False)["input_ids"])
    assert ids[:known] == lm.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    losses = []
    for at in range(known, len(ids)):
        with torch.no_grad():
            logits = lm.module(input_ids=torch.tensor([[*lm.start_ids, *ids[:at]]])).logits[0, -1]
        losses.append(-float(logits.log_softmax(0)[ids[at]]))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_mean_nll_of_the_targets_tokens(
    name: str, model: Callable[..., Any], score_is_exact: Any
) -> None:
    lm = model(name)
    for target in TARGETS:
        term = TargetContinuation(lm, target)
        assert term.exact("A brown dog") == pytest.approx(by_hand(lm, "A brown dog", target), abs=1e-5)
        score_is_exact(term)


@pytest.mark.parametrize("name", MODELS)
def test_several_targets_count_their_mean(name: str, model: Callable[..., Any], score_is_exact: Any) -> None:
    lm = model(name)
    term = TargetContinuation(lm, TARGETS, prefix="Look: ", suffix=", it is")
    each = [by_hand(lm, "Look: a dog, it is", target) for target in TARGETS]
    assert term.exact("a dog") == pytest.approx(sum(each) / 2, abs=1e-5)
    assert each[0] != pytest.approx(each[1], abs=1e-3)
    score_is_exact(term)


@pytest.mark.parametrize("name", MODELS)
def test_the_parts_add_up_to_the_whole(name: str, model: Callable[..., Any]) -> None:
    # NLL of the text and of the target behind it, together, are the NLL of both as one text.
    lm = model(name)
    text, target = "A brown dog", " in the park."
    total, count = lm.nll(lm.encode([text + target]))
    own, own_count = lm.nll(lm.encode([text]))
    expected = float(total - own) / float(count - own_count)
    assert TargetContinuation(lm, target).exact(text) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_gradients(
    name: str, model: Callable[..., Any], slope_is_right: Any, slot_is_the_next_word: Any
) -> None:
    exactness = {"step": 1e-3, "rtol": 1e-2} if name in ("llama", "qwen2") else {}
    wide = TargetContinuation(model(name, torch.float64), TARGETS, prefix="Look: ", suffix=",")
    slope_is_right(wide, **exactness)
    slot_is_the_next_word(TargetContinuation(model(name), TARGETS, suffix=","))
    slot_is_the_next_word(TargetContinuation(model(name), TARGETS[0]))


def test_the_text_keeps_its_own_tokens(model: Callable[..., Any]) -> None:
    # A language model goes on from the tokens of the text; one that reaches across the border never comes.
    lm = model("gpt2")
    (whole,), (text,), (alone,) = (lm.plain_ids([part]) for part in ("A brown dog", "A bro", "wn dog"))
    assert whole[: len(text)] != text
    term = TargetContinuation(lm, "wn dog")
    rows, content = term.rows(["A bro"])
    assert rows == [[*lm.start_ids, *text, *alone]]
    assert content == [(1 + len(text), 1 + len(text) + len(alone))]
    total, _ = lm.nll(lm.collate(rows, content))
    own, _ = lm.nll(lm.encode(["A bro"]))
    assert term.exact("A bro") == pytest.approx(float(total - own) / len(alone), abs=1e-5)
    assert float(term.score(["A brown", "A bro"])[1]) == pytest.approx(term.exact("A bro"), abs=1e-5)


def test_a_text_that_leads_to_the_target_is_better() -> None:
    mini = load_model("mini-lm")
    term = TargetContinuation(mini, " a bicycle")
    assert term.exact("A man in a red shirt is riding") + 1 < term.exact("Two dogs are sleeping")
    away = Objective(Fluency(mini), TargetContinuation(mini, " a bicycle", -1.0))
    terms = away.exact("A man is riding")
    assert terms.value == pytest.approx(terms.terms["fluency"] - terms.terms["target"])


@pytest.mark.parametrize("fluency", [True, False])
def test_a_search_for_a_prompt(fluency: bool, model: Callable[..., Any]) -> None:
    """The prompt found makes the target likelier, beside a fluency term or without one."""
    lm = model("gpt2")
    terms = [Fluency(lm, 0.1)] if fluency else []
    objective = Objective(
        *terms, TargetContinuation(lm, TARGETS[0], 5.0), TargetContinuation(model("opt"), " it")
    )
    assert objective.primary is lm
    found = Search(objective, AutoDAN(candidates=32), BeamSearch(2), prefix="A dog", steps=3).run()
    assert list(found.terms) == ["fluency"] * fluency + ["target", "target_2"]
    assert found.value < objective.exact("A dog").value
    assert found.value == pytest.approx(objective.exact(found.text).value, abs=1e-5)


def test_description(model: Callable[..., Any], same_search: Any) -> None:
    lm = model("gpt2")
    term = TargetContinuation(lm, TARGETS[0])
    assert term.describe()["endings"] == TARGETS[:1]
    assert term.describe()["kind"] == "TargetContinuation"
    assert same_search(term, TargetContinuation(lm, TARGETS[:1]))
    assert not same_search(term, TargetContinuation(lm, TARGETS[1]))
    assert not same_search(term, TargetContinuation(lm, TARGETS[0], suffix=","))


def test_what_is_refused(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    for empty in ("", " ", [" a dog", "\n"]):
        with pytest.raises(TextError, match=r"target .* is empty"):
            TargetContinuation(lm, empty)
    with pytest.raises(ConfigError, match="target: none given"):
        TargetContinuation(lm, [])
    with pytest.raises(ModelError, match=r"needs a model of kind causal-lm; .* is of kind image-text"):
        TargetContinuation(model("clip"), " a dog")
    term = TargetContinuation(lm, " dog" * 10)
    for call in (term.exact, term.check, lambda text: term.score(["dog", text])):
        with pytest.raises(TextError, match="the model reads at most 40"):
            call("dog" + " a" * 35)
    assert Objective(term).fits("dog")
    assert not Objective(term).fits("dog" + " a" * 35)
    probe = lm.embedding_table[5:6]
    with pytest.raises(TextError, match="the model reads at most 40"):
        term.slot_gradient(["dog" + " a" * 25], probe, 5)


def test_nothing_to_go_on_from(model: Callable[..., Any]) -> None:
    assert TargetContinuation(model("gpt2"), " dog").exact("") > 0

    class Unstarted(type(model("gpt2"))):  # type: ignore[misc]
        start_ids = ()

        def token_rows(self, texts: Any) -> Any:
            rows = self.plain_ids(texts)
            return rows, [(0, len(row)) for row in rows]

    lm = Unstarted(model("gpt2").module, model("gpt2").tokenizer, "unstarted")
    with pytest.raises(TextError, match="an empty text has no continuation"):
        TargetContinuation(lm, " dog").exact("")
    assert TargetContinuation(lm, " dog").exact("A") > 0

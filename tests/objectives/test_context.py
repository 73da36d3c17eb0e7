"""Fluency given what stands before the text: its tokens neither count nor are predicted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from promptfuse import ConfigError, Fluency, Objective, TargetContinuation
from promptfuse.models import disable_prefix_cache
from promptfuse.objectives.gradients import placeholder_rows, text_gradient

LMS = ("gpt2", "llama", "opt", "qwen2")
LINES = "A man rides a horse.\nTwo cats sleep.\n"
CASES = [
    # Which setting, what stands before, what the model reads before " a dog" or "a dog".
    ("prefix", LINES, LINES, ""),
    ("prefix", "It is: ", "It is:", " "),
    ("prefix", "It is:", "It is:", ""),
    ("context", LINES, LINES, ""),
    ("context", "It is:", "It is:", " "),
    ("context", "It is: ", "It is:", " "),
    ("context", 'It says "', 'It says "', ""),
]


def by_hand(lm: Any, before: str, text: str) -> float:
    """Mean NLL of a text's tokens behind others, one forward pass by the bare module, in float64."""
    alone, whole = (list(lm._encode([part])[0]) for part in (before, before + text))
    assert whole[: len(alone)] == alone
    row = [*lm.start_ids, *whole]
    with torch.no_grad():
        logits = lm.module(input_ids=torch.tensor([row])).logits[0].double().log_softmax(-1)
    places = range(len(row) - len(whole) + len(alone), len(row))
    return -sum(float(logits[at - 1, row[at]]) for at in places) / len(places)


@pytest.mark.parametrize("name", LMS)
@pytest.mark.parametrize(("setting", "before", "read", "blank"), CASES)
def test_the_likelihood_of_a_text_given_what_stands_before(
    name: str, setting: str, before: str, read: str, blank: str, model: Callable[..., Any]
) -> None:
    lm = model(name)
    term = Fluency(lm, **{setting: before})
    texts = ["a dog", "a dog runs in the park.", "two", "cat"]
    parents = ["a", "a dog runs in the", "", ""]
    expected = [by_hand(lm, read, f"{blank}{text}") for text in texts]
    assert [term.exact(text) for text in texts] == pytest.approx(expected, abs=1e-5)
    assert term.score(texts).tolist() == pytest.approx(expected, abs=1e-4)
    assert term.score(texts, batch_size=1).tolist() == pytest.approx(expected, abs=1e-4)
    for _ in range(2):  # The second time from what is remembered.
        assert term.score(texts, parents=parents).tolist() == pytest.approx(expected, abs=1e-4)
    with disable_prefix_cache():
        assert term.score(texts, parents=parents).tolist() == pytest.approx(expected, abs=1e-4)
    assert term.wrap("a dog") == f"{read}{blank}a dog"
    # Proposals come from the same place.
    rows = term.lm.plain_ids(texts)
    assert term.lm.decode(rows) == texts
    (first,) = term.lm.plain_ids(["a"])
    chances = Objective(term).primary.next_log_probabilities([[], first])
    whole = lm.next_log_probabilities([lm._encode([read])[0], lm._encode([f"{read}{blank}a"])[0]])
    torch.testing.assert_close(chances, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", LMS)
def test_the_suffix_counts_with_the_text(name: str, model: Callable[..., Any]) -> None:
    lm = model(name)
    term = Fluency(lm, context=LINES, suffix=" in the park.", length_exponent=0.5)
    tokens = len(term.lm.plain_ids(["a dog in the park."])[0])
    sum_ = by_hand(lm, LINES, "a dog in the park.") * tokens
    assert term.exact("a dog") == pytest.approx(sum_ / (tokens * 12) ** 0.5, rel=1e-5)
    assert term.score(["a dog", "two"]).tolist() == pytest.approx(
        [term.exact("a dog"), term.exact("two")], abs=1e-4
    )


def test_gradients_behind_a_context(model: Callable[..., Any], slope_is_right: Any) -> None:
    slope_is_right(Fluency(model("gpt2", torch.float64), context=LINES, suffix=" in snow"))
    framed = Fluency(model("gpt2"), context="It is:", suffix=" in snow")
    (rows, content), places = placeholder_rows(framed, ["a dog"], 2)
    start, own = framed.lm.start_ids, framed.lm.plain_ids(["a dog"])[0]
    assert tuple(rows[0][: len(start) + len(own)]) == (*start, *own)
    assert content[0] == (len(start), len(rows[0]))
    assert places == [(len(start) + len(own), 1), (len(start) + len(own), 2)]
    term = Fluency(model("gpt2"), context="It is:")
    found = text_gradient(term, "a dog")
    assert found.ids.tolist() == term.lm.plain_ids(["a dog"])[0]
    assert found.spans[0] == (0, 1)
    # Another first token costs what the model says of it behind the context.
    assert found.labels is not None
    chances = term.lm.next_log_probabilities([[]])[0]
    torch.testing.assert_close(found.labels[0], -chances / len(found.ids), atol=1e-5, rtol=1e-4)


def test_a_text_whose_tokens_would_reach_into_the_context_keeps_its_own(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    (whole,), (before,), (alone,) = (lm._encode([text]) for text in ("A brown dog", "A bro", "wn dog"))
    assert whole[: len(before)] != before
    term = Fluency(lm, prefix="A bro")
    assert term.lm.token_rows(["wn dog"]) == (
        [[*lm.start_ids, *before, *alone]],
        [(1 + len(before), 1 + len(before) + len(alone))],
    )


def test_a_context_is_shared_and_changes_nothing_of_the_model(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    value = Fluency(lm).exact("a dog")
    one, other = Fluency(lm, context=LINES), Fluency(lm, context=LINES)
    assert one.lm is other.lm is not lm
    assert one.model is lm
    assert one.lm.plain is lm
    assert one.lm.reader is lm.reader
    assert Fluency(lm).lm is lm
    assert one.exact("a dog") != pytest.approx(value, abs=1e-3)
    assert Fluency(lm).exact("a dog") == value
    assert one.describe()["context"] == LINES
    assert Fluency(lm, prefix=LINES).describe()["prefix"] == LINES
    # The other terms under the model read what they read.
    target = TargetContinuation(lm, " in snow")
    assert Objective(one, target).exact("a dog").terms["target"] == target.exact("a dog")
    with pytest.raises(ConfigError, match="only one of them can precede the text"):
        Fluency(lm, prefix="a", context="b")


def test_a_line_break_ends_a_text_behind_lines(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    (newline,) = lm.plain_ids(["\n"])[0]
    assert newline in Fluency(lm, context=LINES).lm.end_ids
    assert newline not in Fluency(lm, context=LINES.strip()).lm.end_ids
    assert newline not in lm.end_ids


def test_a_large_vocabulary_costs_no_precision() -> None:
    """A sum over 200,000 probabilities, whole rows against the sum in float64."""
    import transformers

    from promptfuse.models import CausalLM
    from tests.checkpoint_tokenizers import gpt2_tokenizer

    torch.manual_seed(0)
    tokenizer = gpt2_tokenizer()
    config = transformers.GPT2Config(
        vocab_size=200_000, n_positions=32, n_embd=16, n_layer=1, n_head=2, initializer_range=0.02,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    lm = CausalLM(transformers.GPT2LMHeadModel(config), tokenizer, "wide")
    term = Fluency(lm)
    narrow = term.exact("A brown dog runs.")
    lm.module.double()
    assert narrow == pytest.approx(term.exact("A brown dog runs."), abs=2e-5)

"""What a model itself says behind a text, and whether it is what was wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import promptfuse as pf

MODELS = ("gpt2", "llama", "opt", "qwen2", "mistral", "gpt-neox")


def by_transformers(lm: Any, row: list[int], tokens: int) -> list[int]:
    """Greedy decoding as the library of the models does it."""
    found = lm.module.generate(
        torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.long), do_sample=False,
        num_beams=1, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0, repetition_penalty=1.0,
        eos_token_id=None,
    )  # fmt: skip
    return list(found[0, len(row) :].tolist())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("prefix", "suffix"), [("", ""), ("Look: ", ", it is")])
def test_it_is_the_models_own_greedy_continuation(
    name: str, model: Callable[..., Any], prefix: str, suffix: str
) -> None:
    lm = model(name)
    for text in ("A brown dog", "Two children", "the film", "It is a small white cat", "In the park"):
        row = [*lm.start_ids, *lm.tokenizer(prefix + text + suffix, add_special_tokens=False)["input_ids"]]
        ids = by_transformers(lm, row, 3)
        before, whole = lm.tokenizer.decode(row), lm.tokenizer.decode([*row, *ids])
        own = whole[len(before) :]
        if "\ufffd" not in own and not set(ids) & lm.end_ids:
            break  # Tiny models say bytes that are no text.
    else:
        pytest.fail("the model says no text")
    term = pf.TargetContinuation(lm, own, prefix=prefix, suffix=suffix)
    found = term.continuation(text)
    assert found.text.startswith(own)
    assert found.matches
    assert (found.matched, found.targets, term.matched(text)) == (own, (own,), own)
    # Of tokens that are the likeliest ones each, the loss is the smallest of all strings that begin so.
    other = pf.TargetContinuation(lm, " the park.", prefix=prefix, suffix=suffix)
    if not found.text.startswith(" the park."):
        assert not other.continuation(text).matches
        assert other.matched(text) is None
        assert other.continuation(text).text.startswith(own)
    both = pf.TargetContinuation(lm, [" the park.", own], prefix=prefix, suffix=suffix)
    assert both.matched(text) == both.continuation(text).matched == own


def test_half_a_target_or_half_a_token_is_no_match(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    said = pf.TargetContinuation(lm, " the park.").continuation("A brown dog").text
    assert len(said) > 4
    begin = said[:2]
    assert pf.TargetContinuation(lm, begin + "#").matched("A brown dog") is None
    assert pf.TargetContinuation(lm, f"{begin}# and more").continuation("A brown dog").matched is None


def test_a_model_that_has_no_room_says_nothing_more(model: Callable[..., Any]) -> None:
    lm = model("short-gpt2")
    term = pf.TargetContinuation(lm, " dog")
    text = "a" * (lm.max_length - len(lm.start_ids) - len(lm.plain_ids([" dog"])[0]))
    assert len(lm.plain_ids([text])[0]) == len(text) > 20
    assert len(term.continuation(text).text) < 20
    with pytest.raises(pf.TextError, match="the model reads at most"):
        term.continuation(text + "aa")

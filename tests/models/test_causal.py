from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from promptfuse.errors import TextError
from promptfuse.models import CausalLM, load_model

LMS = ("gpt2", "llama", "opt", "qwen2")
TEXTS = ("A brown dog runs through the grass.", "dog", "Café 日本 don't", "What a wonderful film, the best!")
START = {"gpt2": "<|endoftext|>", "llama": "<s>", "opt": "</s>", "qwen2": "<|endoftext|>"}


def by_hand(lm: CausalLM, text: str) -> tuple[float, int]:
    """NLL of a text, token by token, from softmax of the bare module's logits."""
    start = lm.tokenizer.convert_tokens_to_ids([START[lm.name.rsplit("/", 1)[-1]]])
    ids = start + lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    total = 0.0
    for position in range(1, len(ids)):
        with torch.no_grad():
            logits = lm.module(input_ids=torch.tensor([ids[:position]])).logits[0, -1]
        total -= float(logits.double().softmax(-1)[ids[position]].log())
    return total, len(ids) - 1


@pytest.mark.parametrize("name", LMS)
def test_nll_is_the_sum_over_tokens_by_hand(name: str, model: Callable[..., Any]) -> None:
    lm = model(name)
    together, counts = lm.nll(lm.encode(TEXTS))
    for row, text in enumerate(TEXTS):
        expected, number = by_hand(lm, text)
        alone, count = lm.nll(lm.encode([text]))
        assert expected > 1
        assert float(alone) == pytest.approx(expected, abs=1e-5, rel=1e-5)
        assert float(together[row]) == pytest.approx(expected, abs=1e-5, rel=1e-5)
        assert int(count) == int(counts[row]) == number


@pytest.mark.parametrize("name", LMS)
def test_every_text_begins_with_one_begin_mark_whatever_the_template(
    name: str, model: Callable[..., Any]
) -> None:
    lm = model(name)
    rows, content = lm.token_rows(["a dog"])
    begin = lm.tokenizer.convert_tokens_to_ids(START[name])
    assert lm.start_ids == (begin,)
    assert rows[0][0] == begin
    assert rows[0].count(begin) == 1
    assert content == [(1, len(rows[0]))]
    assert lm.plain_ids(["a dog"]) == [rows[0][1:]]
    assert lm.tokenizer.eos_token_id in lm.end_ids


def test_a_configured_begin_mark_counts_before_the_end_mark(model: Callable[..., Any]) -> None:
    lm = model("qwen2")
    config = lm.module.config
    assert lm.tokenizer.bos_token_id is None
    before, config.bos_token_id = config.bos_token_id, 5
    try:
        assert lm.start_ids == (5,)
        config.eos_token_id = [3, 4]
        assert lm.end_ids == {3, 4, lm.tokenizer.eos_token_id}
    finally:
        config.bos_token_id, config.eos_token_id = before, lm.tokenizer.eos_token_id


@pytest.mark.parametrize("name", LMS)
def test_next_log_probabilities_are_those_of_the_full_forward_pass(
    name: str, model: Callable[..., Any]
) -> None:
    lm = model(name)
    rows = [*lm.plain_ids(TEXTS), [], lm.plain_ids(["dog"])[0]]
    found = lm.next_log_probabilities(rows)
    assert found.shape == (len(rows), len(lm.embedding_table))
    assert found.dtype == torch.float32
    for row, ids in enumerate(rows):
        with torch.no_grad():
            logits = lm.module(input_ids=torch.tensor([[*lm.start_ids, *ids]])).logits[0, -1]
        torch.testing.assert_close(found[row], logits.log_softmax(-1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(len(rows)))
    assert (found[0] - found[1]).abs().max() > 0.01


def test_next_log_probabilities_ask_for_no_more_columns_than_needed(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    seen = []
    handle = lm.module.lm_head.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    try:
        lm.next_log_probabilities([[1, 2, 3], [4, 5, 6]], reuse=False)
        lm.next_log_probabilities([[1, 2, 3], [4, 5, 6], [7]], reuse=False)
        lm.next_log_probabilities([[21, 22, 23], [24, 25, 26]])
        lm.next_log_probabilities([[21, 22, 23, 24], [24, 25, 26, 27], [24, 28]])
    finally:
        handle.remove()
    # Behind the rows that are remembered, each row's last token is the only one.
    assert [shape[1] for shape in seen] == [1, 2, 1, 2]


@pytest.mark.parametrize("name", LMS)
def test_next_log_probabilities_behind_what_is_remembered(name: str, model: Callable[..., Any]) -> None:
    lm = model(name)
    (ids,) = lm.plain_ids(["A woman holds a small cat in the snow"])
    for stop in range(1, len(ids) + 1):
        rows = [ids[:stop], [*ids[: stop - 1], 5], ids[:1]]
        whole = lm.next_log_probabilities(rows, reuse=False)
        torch.testing.assert_close(lm.next_log_probabilities(rows), whole, rtol=1e-4, atol=1e-4)
    if os.environ.get("PROMPTFUSE_FAST") != "0":
        assert lm.reader.mode == "tree"


def test_next_log_probabilities_without_that_help(model: Callable[..., Any], monkeypatch: Any) -> None:
    lm = model("gpt2")
    rows = lm.plain_ids(TEXTS)
    expected = lm.next_log_probabilities(rows)
    plain = CausalLM(lm.module, lm.tokenizer, "plain")
    monkeypatch.setitem(plain.__dict__, "_keeps_logits", False)
    torch.testing.assert_close(plain.next_log_probabilities(rows), expected)


def test_what_stands_behind_the_head_is_not_forgotten() -> None:
    # Gemma 2 squashes its logits behind the vocabulary projection.
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"a": 0})), bos_token="a"
    )
    config = transformers.Gemma2Config(
        vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4, final_logit_softcapping=0.5, bos_token_id=0, eos_token_id=1,
        pad_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    module = transformers.Gemma2ForCausalLM(config)
    torch.nn.init.normal_(module.model.embed_tokens.weight)
    lm = CausalLM(module, tokenizer, "gemma")
    found = lm.next_log_probabilities([[3, 4, 5], [6]])
    with torch.no_grad():
        logits = lm.module(input_ids=torch.tensor([[0, 3, 4, 5]])).logits[0, -1]
    assert logits.abs().max() <= 0.5
    torch.testing.assert_close(found[0], logits.log_softmax(-1))


def test_nll_agrees_with_next_log_probabilities(model: Callable[..., Any]) -> None:
    lm = model("llama")
    (ids,) = lm.plain_ids(["a brown dog"])
    chained = sum(
        float(lm.next_log_probabilities([ids[:position]])[0, ids[position]]) for position in range(len(ids))
    )
    assert float(lm.nll(lm.encode(["a brown dog"]))[0]) == pytest.approx(-chained, abs=1e-5)


def test_rows_that_do_not_fit(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    assert lm.next_log_probabilities([[1] * 39]).shape == (1, len(lm.embedding_table))
    with pytest.raises(TextError, match="41 tokens, the model reads at most 40"):
        lm.next_log_probabilities([[1], [1] * 40])


def test_without_any_begin_mark_an_empty_text_is_refused(checkpoint: Callable[[str], Path]) -> None:
    lm = load_model(checkpoint("gpt2"))
    assert isinstance(lm, CausalLM)
    lm.tokenizer.bos_token = None
    lm.tokenizer.eos_token = None
    lm.module.config.bos_token_id = None
    assert lm.start_ids == ()
    with pytest.raises(TextError, match="give a prefix"):
        lm.next_log_probabilities([[1, 2], []])
    with pytest.raises(TextError, match="has no tokens"):
        lm.encode([""])
    # The first token is given then, and not predicted.
    total, count = lm.nll(lm.encode(["dog runs"]))
    (ids,) = lm.plain_ids(["dog runs"])
    assert int(count) == len(ids) - 1
    assert float(total) == pytest.approx(
        -sum(float(lm.next_log_probabilities([ids[:k]])[0, ids[k]]) for k in range(1, len(ids))), abs=1e-5
    )

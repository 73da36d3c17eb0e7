"""Readers behind keys and values: architectures that take trees, rows only, or neither."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from promptfuse.models import CausalLM
from promptfuse.objectives import Fluency, TargetContinuation
from tests.checkpoint_tokenizers import gpt2_tokenizer
from tests.fast_paths import needs_fast

PARENTS = ("A brown dog runs through the", "Two children", "A")
TEXTS = [parent + word for parent in PARENTS for word in (" grass", " park", "s", " xyzzy playing", ".")]
FROM = [parent for parent in PARENTS for _ in range(5)]


def tiny(kind: str, **options: Any) -> CausalLM:
    """A random model of an architecture, with weights large enough to matter."""
    tokenizer = gpt2_tokenizer()
    ids = {
        "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**ids, **options)
    torch.manual_seed(0)
    module = getattr(transformers, f"{kind}ForCausalLM")(config)
    for parameter in module.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=1.2 / parameter.shape[1] ** 0.5)
    return CausalLM(module, tokenizer, kind)


LLAMA = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64,
}  # fmt: skip
KINDS = {
    "Bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
    "Falcon": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    "GPTNeo": {
        "hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]],
        "window_size": 6, "max_position_embeddings": 64,
    },
    "Gemma2": {**LLAMA, "head_dim": 8, "sliding_window": 6},
    "Mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
    "Mistral": {**LLAMA, "sliding_window": 6},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")  # Some architectures ask for optional kernels.
def test_values_are_exact_whatever_the_model_takes(kind: str) -> None:
    lm = tiny(kind, **KINDS[kind])
    for term in (Fluency(lm, suffix=" in"), TargetContinuation(lm, [" the park.", " snow"])):
        exact = [term.exact(text) for text in TEXTS]
        assert term.score(TEXTS, parents=FROM).tolist() == pytest.approx(exact, abs=1e-4)
        assert len({round(value, 3) for value in exact}) > 5
    rows = [*lm.plain_ids(list(PARENTS)), *lm.plain_ids(TEXTS)]
    whole = lm.next_log_probabilities(rows, reuse=False)
    torch.testing.assert_close(lm.next_log_probabilities(rows), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lm.next_log_probabilities(rows), whole, rtol=1e-4, atol=1e-4)


@needs_fast
@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "qwen2", "mistral", "gpt-neox"])
def test_common_architectures_take_trees(name: str, model: Callable[..., Any]) -> None:
    reader = model(name).reader
    assert reader is not None
    assert reader.mode == "tree"


@pytest.mark.filterwarnings("ignore")
def test_rows_beyond_a_window_are_read_whole() -> None:
    lm = tiny("Mistral", **KINDS["Mistral"])
    assert lm.reader.longest in (0, 6)
    assert lm.match_prefixes([list(range(1, 9))], [[1, 2, 3]]) is None


@pytest.mark.filterwarnings("ignore")
def test_a_model_without_keys_and_values_is_read_whole() -> None:
    assert tiny("Mamba", **KINDS["Mamba"]).reader.name == "plain"


@needs_fast
def test_many_branches_share_rows(model: Callable[..., Any]) -> None:
    lm = model("gpt2")
    words = [" dog in", " cat in", " man in", " park in", " xyzzy in"] * 8
    texts, parents = [f"A brown{word}" for word in words], ["A brown"] * len(words)
    term = Fluency(lm)
    exact = [term.exact(text) for text in texts[:5]] * 8
    term.score(texts[:1], parents=parents[:1])
    shapes = []
    handle = lm.embedding.register_forward_hook(lambda module, args, output: shapes.append(args[0].shape))
    try:
        assert term.score(texts, parents=parents).tolist() == pytest.approx(exact, abs=1e-4)
    finally:
        handle.remove()
    assert sum(rows for rows, _ in shapes) < len(texts) / 3


@needs_fast
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_branches_of_their_own_rows_agree_too(name: str, model: Callable[..., Any], monkeypatch: Any) -> None:
    lm = model(name)
    monkeypatch.setattr(lm.reader, "mode", "rows")
    term = Fluency(lm)
    exact = [term.exact(text) for text in TEXTS]
    assert term.score(TEXTS, parents=FROM).tolist() == pytest.approx(exact, abs=1e-4)

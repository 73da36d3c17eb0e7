"""Weights are frozen while a model is wrapped; whoever changes them calls ``clear_cache``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import promptfuse as pf
from promptfuse.models import load_model

TEXTS = ["A brown dog runs through the green grass", "A brown dog runs through the park", "Two children"]
KINDS = ("gpt2", "llama", "qwen2", "opt", "clip", "siglip", "dual", "bert", "roberta", "t5-encoder")


def terms(model: Any) -> pf.Term:
    if model.kind == "causal-lm":
        return pf.Fluency(model)
    if model.kind == "classifier":
        return pf.ClassProbability(model, model.labels[0])
    return pf.TextSimilarity(model, "A black bird is flying")


def edit(model: Any) -> None:
    """Change a few rows of every weight in a way that PyTorch does not count."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.module.parameters():
        if parameter.dim() == 2:
            rows = parameter.data[: max(1, len(parameter) // 3)]
            rows += 0.3 * rows.std() * torch.randn(rows.shape, generator=generator)


def read(model: Any) -> list[float]:
    return list(terms(model).score(TEXTS).tolist())


@pytest.mark.parametrize("name", KINDS)
def test_after_clear_cache_all_is_as_if_loaded_anew(name: str, checkpoint: Callable[[str], Path]) -> None:
    used = load_model(checkpoint(name))
    before = read(used)
    first = used.fingerprint, used.identity, used.embedding_table.clone()
    edit(used)
    used.clear_cache()
    fresh = load_model(checkpoint(name))
    fresh.module.load_state_dict(used.module.state_dict())
    fresh.clear_cache()
    assert read(used) == read(fresh)
    assert read(used) == pytest.approx([terms(used).exact(text) for text in TEXTS], abs=1e-4)
    assert max(abs(a - b) for a, b in zip(read(used), before, strict=True)) > 1e-3
    assert (used.fingerprint, used.identity) == (fresh.fingerprint, fresh.identity)
    assert used.fingerprint != first[0]
    assert used.identity != first[1]
    assert torch.equal(used.embedding_table, fresh.embedding_table)
    assert not torch.equal(used.embedding_table, first[2])


def test_a_search_after_clear_cache_is_that_of_a_fresh_model(checkpoint: Callable[[str], Path]) -> None:
    def search(lm: Any, clip: Any) -> Any:
        target = pf.TextSimilarity(clip, "A black bird is flying", 5.0)
        objective = pf.Objective(pf.Fluency(lm), target)
        return pf.optimize(objective, pf.AutoDAN(candidates=8), steps=3)

    lm, clip = load_model(checkpoint("gpt2")), load_model(checkpoint("clip"))
    before = search(lm, clip)
    for model in (lm, clip):
        edit(model)
        model.clear_cache()
    found = search(lm, clip)
    others = [load_model(checkpoint(name)) for name in ("gpt2", "clip")]
    for other, model in zip(others, (lm, clip), strict=True):
        other.module.load_state_dict(model.module.state_dict())
    expected = search(*others)
    assert (found.text, found.value) == (expected.text, pytest.approx(expected.value, abs=1e-6))
    assert found.value != before.value


def test_contexts_share_it(checkpoint: Callable[[str], Path]) -> None:
    lm = load_model(checkpoint("gpt2"))
    behind = lm.behind("A brown dog")
    before = read(behind)
    edit(lm)
    behind.clear_cache()
    assert lm.generation == behind.generation == 1
    assert read(behind) == pytest.approx([terms(behind).exact(text) for text in TEXTS], abs=1e-4)
    assert read(behind) != before


def test_weights_that_are_no_numbers_any_more(checkpoint: Callable[[str], Path]) -> None:
    lm = load_model(checkpoint("gpt2"))
    lm.module.transformer.wte.weight.data[3] = torch.nan
    with pytest.raises(pf.ModelError, match=r"wte\.weight.*NaN"):
        lm.clear_cache()

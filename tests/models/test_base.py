from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from promptfuse.errors import TextError
from promptfuse.models import CausalLM, ImageTextModel, Model, load_model

EVERY = ("gpt2", "llama", "opt", "qwen2", "clip", "old-clip", "siglip", "dual", "bert", "roberta")
TEXTS = ("A brown dog runs.", "dog", "two children, playing!")


def output(model: Model, batch: Any) -> Tensor:
    """What the model makes of a batch, (rows, any)."""
    if isinstance(model, CausalLM):
        return model.nll(batch)[0][:, None]
    if isinstance(model, ImageTextModel):
        return model.text_features(batch)
    return model.log_probabilities(batch)  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("name", EVERY)
def test_encode_pads_on_the_right_and_marks_the_content(name: str, model: Callable[..., Any]) -> None:
    loaded = model(name)
    batch = loaded.encode(TEXTS)
    for row, text in enumerate(TEXTS):
        (plain,) = loaded.tokenizer([text], add_special_tokens=False)["input_ids"]
        start, stop = batch.text_spans[row]
        assert batch.ids[row, start:stop].tolist() == plain
        tokens = len(loaded.token_rows([text])[0][0])
        assert batch.ids[row, tokens:].tolist() == [loaded.pad_id] * (batch.ids.shape[1] - tokens)
        if name != "siglip":  # Its rows are full, padding included.
            assert batch.mask[row].tolist() == [1] * tokens + [0] * (batch.ids.shape[1] - tokens)


@pytest.mark.parametrize("name", EVERY)
def test_a_text_counts_the_same_alone_and_in_a_padded_batch(name: str, model: Callable[..., Any]) -> None:
    loaded = model(name)
    together = output(loaded, loaded.encode(TEXTS))
    for row, text in enumerate(TEXTS):
        torch.testing.assert_close(
            output(loaded, loaded.encode([text]))[0], together[row], rtol=1e-5, atol=1e-5
        )
    # The texts differ, so that agreement means something.
    assert (together[0] - together[1]).abs().max() > 0.01


@pytest.mark.parametrize("name", EVERY)
def test_the_look_up_passed_back_changes_nothing_and_a_change_shows(
    name: str, model: Callable[..., Any]
) -> None:
    loaded = model(name)
    batch = loaded.encode(TEXTS)
    plain, own = output(loaded, batch), loaded.embedding(batch.ids)
    with loaded.embeddings_from(own):
        assert torch.equal(output(loaded, batch), plain)
    moved = own.clone()
    column = batch.text_spans[0][0]
    moved[0, column] += torch.linspace(-1, 2, own.shape[-1]) ** 2
    with loaded.embeddings_from(moved):
        changed = output(loaded, batch)
    assert (changed[0] - plain[0]).abs().max() > 1e-3
    torch.testing.assert_close(changed[1:], plain[1:])


def test_embeddings_are_given_back_after_an_exception(model: Callable[..., Any]) -> None:
    loaded = model("clip")
    batch = loaded.encode(TEXTS)
    plain = output(loaded, batch)

    def fail() -> None:
        with loaded.embeddings_from(torch.zeros_like(loaded.embedding(batch.ids))):
            assert not torch.allclose(output(loaded, batch), plain)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(output(loaded, batch), plain)
    assert not loaded.embedding._forward_hooks


@pytest.mark.parametrize("name", ["gpt2", "opt", "clip", "siglip", "dual", "bert", "roberta"])
def test_gradients_at_the_embeddings_are_those_of_finite_differences(
    name: str, model: Callable[..., Any]
) -> None:
    loaded = model(name, torch.float64)
    batch = loaded.encode(TEXTS)
    own = loaded.embedding(batch.ids)
    direction = torch.randn(own.shape, generator=torch.Generator().manual_seed(0), dtype=own.dtype)
    chosen = torch.randn(
        output(loaded, batch).shape, generator=torch.Generator().manual_seed(1), dtype=own.dtype
    )

    def value(embeddings: Tensor) -> Tensor:
        with loaded.embeddings_from(embeddings):
            return (output(loaded, batch) * chosen).sum()

    leaf = own.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    step = 1e-5
    expected = (value(own + step * direction) - value(own - step * direction)) / (2 * step)
    assert expected.dtype == torch.float64
    assert expected.abs() > 1e-3
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-6, atol=1e-9)


def test_texts_of_strange_characters_encode(model: Callable[..., Any]) -> None:
    for name in EVERY:
        loaded = model(name)
        batch = loaded.encode(["日🙂", "é\u0301", "\u200b", "a\tb"])
        assert int(batch.ids.max()) < len(loaded.embedding_table)
        assert torch.isfinite(output(loaded, batch)[[0, 1, 3]]).all()


@pytest.mark.parametrize("name", EVERY)
def test_texts_that_grow_have_the_rows_of_fresh_ones(name: str, model: Callable[..., Any]) -> None:
    loaded = model(name)
    texts = ["A", "A brown", "A brown dog", "Two", "Two brown dogs", "it's  10 dollars.", ""]
    for words in ([" brown", " dog", "s", ".", " xyzzy"], [" dog", " in", "\u00e9", " dog dog"]):
        grown = [f"{text}{word}" for text in texts for word in words]
        rows, content = loaded.cached_rows(grown)
        fresh, ranges = loaded.token_rows(grown)
        assert (rows, list(content)) == (fresh, ranges)


def test_rows_of_a_batch_are_those_it_was_made_of(model: Callable[..., Any]) -> None:
    loaded = model("gpt2")
    rows = [[3, 4, 5], [6], [7, 8]]
    batch = loaded.collate(rows, [(0, len(row)) for row in rows])
    assert batch.rows == rows
    assert replace(batch, rows=()).rows == rows
    assert batch.ids.tolist() == [[3, 4, 5], [6, loaded.pad_id, loaded.pad_id], [7, 8, loaded.pad_id]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize("name", ["mini-lm", "mini-clip", "mini-tone"])
def test_no_text_at_all_is_said(name):
    with pytest.raises(TextError, match="no text given; give at least one"):
        load_model(name).encode([])

"""Every architecture as A, where it is causal, and as B: adapter, transports, gradients, search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import promptfuse as pf
from promptfuse.adapters import Adapter
from promptfuse.errors import ModelError
from promptfuse.text.segments import segment_text
from tests.checkpoint_tokenizers import SENTENCES
from tests.models.test_image_text import photos

CAUSAL = ("gpt2", "llama", "opt", "qwen2", "mistral", "gpt-neox")
OTHERS = (
    "clip", "siglip", "bert", "roberta", "distilbert", "deberta", "t5-encoder", "bert-encoder", "gpt2-tone",
)  # fmt: skip
PAIRS = [
    *((a, b) for a in CAUSAL for b in OTHERS),
    # Every causal model as B too, behind one with another tokenizer.
    *(("llama" if b != "llama" else "gpt2", b) for b in CAUSAL),
]
SINGLE = ("llama", "qwen2", "mistral", "gpt-neox", "t5-encoder")
"""These normalise or turn in single precision, whatever the type of their parameters."""
TEXT = "A brown dog is riding"
Models = Callable[..., Any]
AS_LONG_AS = {"rtol": 1e-5, "atol": 1e-5}


def term_of(model: Any) -> pf.Term:
    """A term whose loss depends on the next word."""
    if model.kind == "causal-lm":
        return pf.Fluency(model, suffix=" in the snow.", name="other")
    if model.kind == "image-text":
        return pf.ImageSimilarity(model, photos()[0], 4.0)
    if model.kind == "sentence-encoder":
        return pf.TextSimilarity(model, "A film with children.", 4.0)
    return pf.ClassProbability(model, next(label for label in model.labels if label.lower() == "positive"))


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_adapter(adapter: Adapter, a: Any, b: Any, text: str = TEXT) -> None:
    """The way back is autograd through the way there, by itself and coupled to B's own embeddings."""
    cut = segment_text(text, [a.tokenizer, b.tokenizer])
    n_a, n_b = ([stop - start for start, stop in spans] for spans in cut.token_spans)
    x, y = (
        model.embedding_table[list(ids[spans[0][0] : spans[-1][1]])][None].clone().requires_grad_()
        for model, ids, spans in zip((a, b), cut.ids, cut.token_spans, strict=True)
    )
    gradient = random(*y.shape)
    (expected,) = torch.autograd.grad(adapter.push(x, n_a, n_b), x, gradient)
    torch.testing.assert_close(adapter.pull(gradient, n_a, n_b), expected, **AS_LONG_AS)
    coupled = pf.TProductTransport(adapter, a, b).couple(x, y, n_a, n_b)
    assert torch.equal(coupled, y)
    found_a, found_b = torch.autograd.grad(coupled, (x, y), gradient)
    torch.testing.assert_close(found_a, expected, **AS_LONG_AS)
    assert torch.equal(found_b, gradient)
    assert expected.abs().max() > 1e-4


def assert_transports(adapter: Adapter, a: Any, b: Any, text: str = TEXT) -> None:
    """Estimates for exactly the tokens that begin a word which B can spell."""
    for transport in (pf.LexicalTransport(a, b, 2), pf.TProductTransport(adapter, a, b, 2)):
        chances = a.next_log_probabilities(a.plain_ids([text])).exp()
        slot = term_of(b).slot_gradient([text], transport.expected_embedding(chances), 2)
        estimates = transport.estimate(slot)
        assert estimates.shape == (1, len(a.embedding_table))
        known = torch.zeros(len(a.embedding_table), dtype=torch.bool)
        known[transport.tokens] = True
        assert torch.equal(estimates[0].isfinite(), known)
        assert known.sum() > 20
        assert estimates[0, known].std() > 0


def assert_search(a: Any, b: Any) -> pf.Result:
    """What a search reports is the value of the string from scratch."""
    objective = pf.Objective(pf.Fluency(a), term_of(b))
    search = pf.Search(objective, pf.AutoDAN(candidates=6), pf.BeamSearch(2), prefix="A dog", steps=2)
    for _ in search:
        pass
    for beam in search.beams:
        assert beam.value == pytest.approx(objective.exact(beam.text).value, abs=1e-4)
    result = search.result()
    exact = objective.exact(result.text)
    assert result.value == pytest.approx(exact.value, abs=1e-4)
    assert result.terms == pytest.approx(exact.terms, abs=1e-4)
    assert len(result.text) > len("A dog")
    return result


@pytest.mark.parametrize(("name_a", "name_b"), PAIRS)
def test_pair(name_a: str, name_b: str, model: Models, tmp_path: Path) -> None:
    a, b = model(name_a), model(name_b)
    adapter = Adapter.fit(a, b)
    assert_adapter(adapter, a, b)
    assert_transports(adapter, a, b)
    assert_search(a, b)
    adapter.save_pretrained(tmp_path / "adapter")
    again = Adapter.from_pretrained(tmp_path / "adapter")
    again.verify(a, b)
    for n in range(1, 12):
        assert torch.equal(again.maps.of_length(n), adapter.maps.of_length(n))


@pytest.mark.parametrize("name", [*CAUSAL, *OTHERS])
def test_slot_gradients_are_finite_differences(name: str, model: Models) -> None:
    b = model(name, torch.float64)
    term, d = term_of(b), b.embedding_table.shape[1]
    texts = [TEXT, "Two children"]
    probe = b.embedding_table.mean(0) + 0.3 * random(2, d, dtype=torch.float64)
    step, rtol, atol = (1e-3, 5e-3, 5e-4) if name in SINGLE else (1e-5, 1e-5, 1e-7)
    found = term.slot_gradient(texts, probe, 2)
    direction = random(2, d, seed=1, dtype=torch.float64)
    ahead, behind = (term.slot_gradient(texts, probe + sign * step * direction, 2).loss for sign in (1, -1))
    slope = (ahead - behind) / (2 * step)
    assert slope.abs().min() > 1e-6
    estimate = torch.einsum("bmjd,bd->bm", found.gradient, direction)
    torch.testing.assert_close(estimate, slope, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", [*CAUSAL, *OTHERS])
def test_scores_are_exact_whatever_the_batch(name: str, model: Models) -> None:
    term, texts = term_of(model(name)), [TEXT, "Two children", "dog", "The food is delicious, isn't it?"]
    exact = [term.exact(text) for text in texts]
    assert len({round(value, 4) for value in exact}) > 2
    for batch_size in (1, 3, 64):
        assert term.score(texts, batch_size=batch_size).tolist() == pytest.approx(exact, abs=1e-4)


def test_rows_that_no_token_has_are_never_proposed(model: Models) -> None:
    """Vocabularies are often padded; the rows have logits like any other."""
    for name in ("qwen2", "gpt-neox"):
        a = model(name)
        assert len(a.embedding_table) > len(a.tokenizer)
        result = assert_search(a, model("t5-encoder"))
        assert max(a.plain_ids([result.text])[0]) < len(a.tokenizer)


@pytest.mark.parametrize(("name_a", "name_b"), [("short-gpt2", "bert"), ("gpt2", "short-bert")])
def test_ids_without_a_row_are_left_out(name_a: str, name_b: str, model: Models) -> None:
    a, b = model(name_a), model(name_b)
    short = a if name_a.startswith("short") else b
    rows = len(short.embedding_table)
    assert len(short.tokenizer) > rows
    adapter = Adapter.fit(a, b)
    assert adapter.report().skipped > 0
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    kept = [word for word in words if max(short.tokenizer(f"A {word}")["input_ids"]) < rows]
    text = " ".join(["A", *kept[:4]])
    assert len(kept) > 4
    assert_adapter(adapter, a, b, text)
    assert_transports(adapter, a, b, text)
    result = assert_search(a, b)
    assert max(short.tokenizer(result.text)["input_ids"]) < rows
    # A text that needs one has a clear end.
    beyond = next(word for word in words if word not in kept)
    with pytest.raises(ModelError, match=f"the embedding table has {rows} rows"):
        term_of(short).exact(f"A {beyond}")

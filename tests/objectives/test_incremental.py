"""Scoring behind shared beginnings gives the values of ``Term.exact``."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from promptfuse.models import Model, disable_prefix_cache
from promptfuse.objectives import ClassProbability, Fluency, ImageSimilarity, Term, TextSimilarity
from tests.fast_paths import needs_fast

CAUSAL = ("gpt2", "llama", "opt", "qwen2", "mistral", "gpt-neox", "clip", "old-clip", "dual")
WHOLE = (
    "siglip", "bert", "roberta", "distilbert", "deberta", "t5-encoder", "bert-encoder", "gpt2-tone",
)  # fmt: skip
DOUBLE = ("gpt2", "opt", "clip", "old-clip", "dual")
"""The other causal models normalise or turn in single precision, whatever the type of their parameters."""
WORDS = (
    " dog", " dogs", " brown", "s", "ing", " 日本", "é", " 🙂", " playing football", ",", " I", "'ll",
    " don't", " strawberries", " xyzzy", " a", ".", " 10", "-", "  two blanks",
)  # fmt: skip
BEAMS = ("A brown dog", "Two children are play", "Café", "a")


class Count:
    """How many tokens a model has looked up."""

    count = 0


@pytest.fixture
def tokens_read() -> Callable[[Model], Any]:
    """Counts the tokens that a model reads within a block."""

    @contextmanager
    def counting(model: Model) -> Iterator[Count]:
        found = Count()

        def note(module: Any, args: Any, output: Any) -> None:
            found.count += args[0].numel()

        handle = model.embedding.register_forward_hook(note)
        try:
            yield found
        finally:
            handle.remove()

    return counting


def term_of(model: Model, **changes: Any) -> Term:
    if model.kind == "causal-lm":
        return Fluency(model, **changes)
    if model.kind == "image-text":
        return ImageSimilarity(model, photo(), **changes)
    if model.kind == "sentence-encoder":
        return TextSimilarity(model, "A film with children.", **changes)
    return ClassProbability(model, "positive", **changes)


def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def family(beams: int, seed: int = 0, each: int = 9) -> tuple[list[str], list[str]]:
    """Candidates of some beams, shuffled, with the beams that they grew from."""
    chooser = random.Random(seed)
    pairs = [(beam + word, beam) for beam in BEAMS[:beams] for word in chooser.sample(WORDS, each)]
    chooser.shuffle(pairs)
    return [text for text, _ in pairs], [parent for _, parent in pairs]


@pytest.mark.parametrize("batch_size", [1, 3, None])
@pytest.mark.parametrize("beams", [1, 2, 3, 4])
@pytest.mark.parametrize("name", CAUSAL + WHOLE)
def test_values_are_exact(name: str, beams: int, batch_size: int | None, model: Callable[..., Any]) -> None:
    term = term_of(model(name))
    texts, parents = family(beams)
    exact = [term.exact(text) for text in texts]
    assert term.score(texts, batch_size, parents).tolist() == pytest.approx(exact, abs=1e-4)
    assert term.score(texts, batch_size).tolist() == pytest.approx(exact, abs=1e-4)
    assert len({round(value, 3) for value in exact}) > 3


@needs_fast
@pytest.mark.parametrize("name", CAUSAL)
def test_shared_beginnings_are_read_once(name: str, model: Callable[..., Any], tokens_read: Any) -> None:
    loaded = model(name)
    term = term_of(loaded)
    parent = "Two children are playing football in the park"
    texts = [parent + word for word in (" dog", " cat", " red", " snow", " blue")]
    term.score(texts[:1], parents=[parent])  # The beam is known from here on.
    with tokens_read(loaded) as whole:
        term.score(texts)
    with tokens_read(loaded) as rest:
        term.score(texts, parents=[parent] * len(texts))
    beginning = len(loaded.unterminated_rows([parent])[0])
    new = sum(len(row) - beginning for row in loaded.token_rows(texts)[0])
    assert whole.count >= new + beginning * len(texts)
    assert rest.count <= new


@needs_fast
@pytest.mark.parametrize("name", CAUSAL)
def test_a_beam_is_read_behind_its_parent(name: str, model: Callable[..., Any], tokens_read: Any) -> None:
    loaded = model(name)
    term = term_of(loaded)
    term.score(["A woman holds a cat"], parents=["A woman holds a"])
    with tokens_read(loaded) as count:
        term.score(["A woman holds a cat in"], parents=["A woman holds a cat"])
    beginning = len(loaded.unterminated_rows(["A woman holds a"])[0])
    assert 0 < count.count <= len(loaded.token_rows(["A woman holds a cat in"])[0][0]) - beginning


@pytest.mark.parametrize(
    ("prefix", "suffix"), [("An image of ", ""), ("", ", in snow."), ("The", " and a dog"), ("", "s")]
)
@pytest.mark.parametrize("name", CAUSAL + WHOLE)
def test_prefix_and_suffix(name: str, prefix: str, suffix: str, model: Callable[..., Any]) -> None:
    term = term_of(model(name), prefix=prefix, suffix=suffix)
    texts, parents = family(2, seed=1, each=6)
    exact = [term.exact(text) for text in texts]
    assert term.score(texts, parents=parents).tolist() == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("name", CAUSAL)
def test_parents_that_are_no_beginnings(name: str, model: Callable[..., Any]) -> None:
    term = term_of(model(name))
    texts = ["A brown dog", "dog", "A brown dog runs", "A brown dog", "A brown"]
    parents = ["A white cat", "A brown dog runs through the grass", "", "A brown dog", "A brown dogs"]
    exact = [term.exact(text) for text in texts]
    assert term.score(texts, parents=parents).tolist() == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("name", CAUSAL)
def test_texts_at_the_position_limit(name: str, model: Callable[..., Any]) -> None:
    loaded = model(name)
    term = term_of(loaded)
    parent = "a"
    while len(loaded.encode_rows([parent + " a a"])[0][0]) <= loaded.max_length:
        parent += " a"
    texts = [parent + " a", parent, parent[:-2]]
    assert len(loaded.token_rows(texts)[0][0]) == loaded.max_length
    # A parent with no room for more, and one that itself has outgrown the model.
    parents = [parent, parent + " a", parent + " a a a"]
    exact = [term.exact(text) for text in texts]
    assert term.score(texts, parents=parents).tolist() == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("name", CAUSAL + WHOLE)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_growth_of_any_text(name: str, data: st.DataObject, model: Callable[..., Any]) -> None:
    letters = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
    pieces = st.one_of(st.sampled_from(WORDS), letters, letters.map(" {}".format))
    term = term_of(model(name))
    beams = data.draw(st.lists(pieces, min_size=1, max_size=3))
    grown = data.draw(st.lists(st.tuples(st.sampled_from(beams), pieces), min_size=1, max_size=6))
    texts, parents = [beam + piece for beam, piece in grown], [beam for beam, _ in grown]
    usable = [index for index, text in enumerate(texts) if text.strip() and fits(term, text)]
    texts, parents = [texts[index] for index in usable], [parents[index] for index in usable]
    exact = [term.exact(text) for text in texts]
    size = data.draw(st.sampled_from([None, 1, 2]))
    assert term.score(texts, size, parents).tolist() == pytest.approx(exact, abs=1e-4)


def fits(term: Term, text: str) -> bool:
    rows, _ = term.model.encode_rows([term.wrap(text)])
    return 0 < len(rows[0]) <= term.model.max_length


@pytest.mark.parametrize("name", CAUSAL)
def test_the_precision_of_the_model_is_kept(name: str, model: Callable[..., Any]) -> None:
    texts, parents = family(3)
    term = term_of(model(name, torch.float64))
    found = term.score(texts, parents=parents)
    assert found.dtype == torch.float64
    tolerance = 1e-10 if name in DOUBLE else 1e-4
    assert found.tolist() == pytest.approx([term.exact(text) for text in texts], abs=tolerance)
    coarse = term_of(model(name, torch.bfloat16))
    exact = torch.tensor([coarse.exact(text) for text in texts])
    assert (coarse.score(texts, parents=parents) - exact).abs().max() < 0.3 * exact.std() + 0.1


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("suffix", ["", " in the snow"])
def test_slot_gradients_are_those_of_whole_rows(name: str, suffix: str, model: Callable[..., Any]) -> None:
    loaded = model(name)
    term = term_of(loaded, prefix="An image of", suffix=suffix)
    texts = ["A brown dog", "Two children are playing", "a"]
    probe = torch.randn(3, loaded.embedding_table.shape[1], generator=torch.Generator().manual_seed(0))
    fast = term.slot_gradient(texts, probe, 3)
    with disable_prefix_cache():
        whole = term.slot_gradient(texts, probe, 3)
    torch.testing.assert_close(fast.loss, whole.loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast.gradient, whole.gradient, rtol=1e-3, atol=1e-5)
    if loaded.kind == "image-text" or suffix:
        assert whole.gradient.abs().max() > 1e-3


def test_what_is_remembered_depends_on_the_weights(checkpoint: Callable[[str], Any]) -> None:
    from promptfuse.models import load_model

    for name in ("clip", "gpt2"):
        loaded = load_model(checkpoint(name))
        term = term_of(loaded)
        texts, parents = family(2)
        before = term.score(texts, parents=parents)
        with torch.no_grad():
            for parameter in loaded.text_module.parameters():
                parameter.mul_(1.25)
        loaded.clear_cache()
        exact = [term.exact(text) for text in texts]
        assert term.score(texts, parents=parents).tolist() == pytest.approx(exact, abs=1e-4)
        assert (before - torch.tensor(exact)).abs().max() > 0.01

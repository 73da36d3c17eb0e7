"""Gradients at the placeholder for the next word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from promptfuse.errors import TextError
from promptfuse.models import Batch, Model
from promptfuse.objectives import ClassProbability, Fluency, ImageSimilarity, Term

MODELS = ("clip", "old-clip", "siglip", "dual", "bert", "roberta", "gpt2-tone")
BEAMS = ("A brown dog", "dog", "Two children are")
SLOTS = 3


def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def term_of(model: Any, **changes: Any) -> Term:
    if model.kind == "image-text":
        return ImageSimilarity(model, photo(), **changes)
    return ClassProbability(model, "positive", **changes)


def probes(model: Model, number: int = len(BEAMS)) -> Tensor:
    """A probe of its own for every beam."""
    table = model.embedding_table
    generator = torch.Generator().manual_seed(0)
    return table.mean(0) + 0.3 * torch.randn(number, table.shape[1], generator=generator, dtype=table.dtype)


def by_hand(term: Term, text: str, probe: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Loss and gradient at the slot for one row built with the model's own words and special tokens."""
    model = term.model
    (front,) = model.tokenizer([f"{term.prefix}{text}"])["input_ids"]
    (bare,) = model.tokenizer([f"{term.prefix}{text}"], add_special_tokens=False)["input_ids"]
    start = next(at for at in range(len(front)) if front[at : at + len(bare)] == bare)
    head, closing = front[: start + len(bare)], front[start + len(bare) :]
    tail = model.tokenizer([f"dog{term.suffix}"], add_special_tokens=False)["input_ids"][0]
    tail = tail[len(model.tokenizer(["dog"], add_special_tokens=False)["input_ids"][0]) :]
    word = model.tokenizer(["dog"], add_special_tokens=False)["input_ids"][0][-1]
    row = [*head, *[word] * length, *tail, *closing]
    batch: Batch = model.collate([row], [(0, 0)])
    embeddings = model.embedding(batch.ids).clone()
    slot = slice(len(head), len(head) + length)
    embeddings[0, slot] = probe
    embeddings.requires_grad_(True)
    with model.embeddings_from(embeddings):
        loss = term.losses(batch)[0]
    (gradient,) = torch.autograd.grad(loss, embeddings)
    return loss.detach(), gradient[0, slot]


@pytest.mark.parametrize("frame", [{}, {"prefix": "An image of "}, {"suffix": " in snow."}])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_autograd_on_a_row_built_by_hand(
    name: str, frame: dict[str, str], model: Callable[..., Any]
) -> None:
    loaded = model(name)
    term = term_of(loaded, **frame)
    probe = probes(loaded)
    found = term.slot_gradient(BEAMS, probe, SLOTS)
    d = loaded.embedding_table.shape[1]
    assert found.loss.shape == (len(BEAMS), SLOTS)
    assert found.gradient.shape == (len(BEAMS), SLOTS, SLOTS, d)
    assert torch.equal(found.probe, probe)
    for beam, text in enumerate(BEAMS):
        for length in range(1, SLOTS + 1):
            loss, gradient = by_hand(term, text, probe[beam], length)
            torch.testing.assert_close(found.loss[beam, length - 1], loss, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(
                found.gradient[beam, length - 1, :length], gradient, rtol=1e-4, atol=1e-6
            )
            assert gradient.abs().amax(dim=1).min() > 1e-5
            assert torch.equal(found.gradient[beam, length - 1, length:], torch.zeros(SLOTS - length, d))
    assert not found.loss.requires_grad
    assert not found.gradient.requires_grad


@pytest.mark.parametrize("name", MODELS)
def test_each_beam_has_its_own_gradient(name: str, model: Callable[..., Any]) -> None:
    # One placeholder shared by all beams would give each the sum over them.
    loaded = model(name)
    term, probe = term_of(loaded), probes(loaded)
    together = term.slot_gradient(BEAMS, probe, SLOTS)
    for beam, text in enumerate(BEAMS):
        alone = term.slot_gradient([text], probe[beam : beam + 1], SLOTS)
        torch.testing.assert_close(together.gradient[beam], alone.gradient[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(together.loss[beam], alone.loss[0], rtol=1e-5, atol=1e-5)
    twice = term.slot_gradient([BEAMS[0], *BEAMS], torch.cat([probe[:1], probe]), SLOTS)
    torch.testing.assert_close(twice.gradient[0], together.gradient[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(twice.gradient[1:], together.gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_word_in_the_slot_has_the_loss_of_the_text_with_it(name: str, model: Callable[..., Any]) -> None:
    # With the word's own embedding for a probe, the row is the text with the word.
    loaded = model(name)
    term = term_of(loaded)
    (row,), ((start, stop),) = loaded.token_rows(["A brown"])
    words = ("dog", "grass", "water", "the", "in", "is", "a", "film", "girl")
    for text in (f"A brown {word}" for word in words):
        (longer,), ((_, end),) = loaded.token_rows([text])
        if end == stop + 1 and longer[start:stop] == row[start:stop]:
            break
    else:
        raise AssertionError("no word of one token")
    found = term.slot_gradient(["A brown"], loaded.embedding_table[longer[stop : stop + 1]], 2)
    assert float(found.loss[0, 0]) == pytest.approx(term.exact(text), abs=1e-5)


@pytest.mark.parametrize("name", ["clip", "siglip", "dual", "bert", "roberta"])
def test_the_linear_estimate_has_the_slope_of_the_loss(name: str, model: Callable[..., Any]) -> None:
    loaded = model(name, torch.float64)
    term, probe = term_of(loaded, prefix="An image of "), probes(loaded)
    probe = probe.double()
    found = term.slot_gradient(BEAMS, probe, SLOTS)
    assert found.loss.dtype == found.gradient.dtype == found.probe.dtype == torch.float64
    direction = torch.randn(probe.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 1e-5
    ahead = term.slot_gradient(BEAMS, probe + step * direction, SLOTS).loss
    behind = term.slot_gradient(BEAMS, probe - step * direction, SLOTS).loss
    slope = (ahead - behind) / (2 * step)
    # Moving the probe moves every position of the slot at once.
    estimate = torch.einsum("bmjd,bd->bm", found.gradient, direction)
    assert slope.abs().min() > 1e-5
    torch.testing.assert_close(estimate, slope, rtol=1e-5, atol=1e-8)


def test_the_sum_over_a_text_is_not_averaged_over_beams(model: Callable[..., Any]) -> None:
    loaded = model("bert")
    term, probe = term_of(loaded), probes(loaded)
    losses = term.slot_gradient(BEAMS, probe, 1).loss[:, 0]
    assert len({round(value, 4) for value in losses.tolist()}) == len(BEAMS)


def test_a_suffix_is_read_as_it_stands_behind_a_word(model: Callable[..., Any]) -> None:
    # Alone, SentencePiece gives it a blank of its own.
    lm = model("llama")
    term = Fluency(lm, suffix=".")
    alone = lm.tokenizer(["."], add_special_tokens=False)["input_ids"][0]
    behind = lm.tokenizer(["dog."], add_special_tokens=False)["input_ids"][0][-1]
    seen = []
    outputs = term.outputs
    term.outputs = lambda batch: seen.append(batch) or outputs(batch)  # type: ignore[method-assign, assignment, func-returns-value]
    term.slot_gradient(["A dog"], lm.embedding_table[5:6], 1)
    (text,) = lm.plain_ids(["A dog"])
    row = seen[0].ids[0].tolist()
    assert row[: 1 + len(text)] == [*lm.start_ids, *text]
    assert row[2 + len(text) :] == [behind]
    assert alone != [behind]


def test_a_language_model_does_not_predict_the_placeholder(model: Callable[..., Any]) -> None:
    # The placeholder's id is arbitrary, so its probability must not enter the loss.
    lm = model("gpt2")
    probe = probes(lm)
    plain = Fluency(lm)
    found = plain.slot_gradient(BEAMS, probe, 2)
    for beam, text in enumerate(BEAMS):
        assert found.loss[beam].tolist() == pytest.approx([plain.exact(text)] * 2, abs=1e-5)
    assert torch.equal(found.gradient, torch.zeros_like(found.gradient))
    # What stands behind it is predicted from it.
    framed = Fluency(lm, suffix=".").slot_gradient(BEAMS, probe, 2)
    assert framed.gradient[:, 1, :2].abs().amax(dim=-1).min() > 1e-5


def test_half_precision(model: Callable[..., Any]) -> None:
    loaded = model("bert", torch.bfloat16)
    probe = probes(model("bert"))
    found = term_of(loaded).slot_gradient(BEAMS, probe, 2)
    assert found.loss.dtype == found.gradient.dtype == found.probe.dtype == torch.float32
    # The probe is the one that was in the slot.
    assert torch.equal(found.probe, probe.bfloat16().float())
    full = term_of(model("bert")).slot_gradient(BEAMS, probe, 2)
    assert (
        torch.nn.functional.cosine_similarity(found.gradient.flatten(), full.gradient.flatten(), dim=0) > 0.9
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_text_with_no_room_for_the_slot_is_too_long(name: str, model: Callable[..., Any]) -> None:
    loaded = model(name)
    term = term_of(loaded)
    text = "dog"
    while len(loaded.token_rows([f"{text} a"])[0][0]) < loaded.max_length - 1:
        text += " a"
    room = loaded.max_length - len(loaded.token_rows([text])[0][0])
    probe = probes(loaded, 2)
    assert torch.isfinite(term.slot_gradient(["dog", text], probe, room).loss).all()
    with pytest.raises(TextError, match=f"the model reads at most {loaded.max_length}"):
        term.slot_gradient(["dog", text], probe, room + 1)


def test_gradients_flow_although_the_caller_switched_them_off(model: Callable[..., Any]) -> None:
    loaded = model("clip")
    probe = probes(loaded)
    with torch.no_grad():
        found = term_of(loaded).slot_gradient(BEAMS, probe, 1)
    assert found.gradient.abs().max() > 0
    assert not torch.is_grad_enabled() or probe.grad is None
    assert not loaded.embedding._forward_hooks

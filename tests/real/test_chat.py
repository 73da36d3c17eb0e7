"""Targets in the chat of a real instruct model."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import promptfuse as pf
from promptfuse.models import CausalLM
from promptfuse.search.methods.swaps import SwapEstimator
from tests.real.packages import needs

FREE = pf.Constraints(no_repeat_ngram=0, no_repeated_word=False)
PROMPT, TEXT, TARGET = "What do penguins do?", "x x x x Tell me x x", "Penguins swim very well."


def by_hand(lm: CausalLM, message: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits before each of the target's tokens, these tokens, and the input embeddings with a gradient."""
    turns = [{"role": "user", "content": message}]
    chat = lm.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    before = lm.tokenizer(chat, add_special_tokens=False)["input_ids"]
    target = lm.tokenizer(TARGET, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([before + target])
    embeddings = lm.module.get_input_embeddings()(ids).detach().requires_grad_(True)
    logits = lm.module(inputs_embeds=embeddings).logits[0, len(before) - 1 : -1]
    return logits, ids[0, len(before) :], embeddings


@pytest.mark.parametrize("name", [needs("smollm2")])
def test_losses_are_those_of_the_tokenizers_own_template(name: str) -> None:
    lm = pf.load_model(name, start="chat")
    logits, target, _ = by_hand(lm, f"{PROMPT} {TEXT}")
    logits = logits.detach()
    nll = functional.cross_entropy(logits, target, reduction="none")
    others = logits.scatter(1, target[:, None], -torch.inf).amax(1)
    expected = {
        "nll": nll.mean(),
        "mellowmax": nll.exp().mean().log(),
        "cw": (others - logits.gather(1, target[:, None])[:, 0]).clamp_min(-1e-3).mean(),
    }
    for loss, value in expected.items():
        (term,) = pf.target_terms(lm, [(PROMPT, TARGET)], loss=loss)
        assert term.exact(TEXT) == pytest.approx(float(value), abs=1e-4)
        (fast,) = term.score([TEXT], parents=[TEXT.replace("Tell", "Show")]).tolist()
        assert fast == pytest.approx(float(value), abs=2e-4)


@pytest.mark.parametrize("name", [needs("smollm2")])
def test_the_gradient_is_that_of_a_plain_backward_pass(name: str) -> None:
    lm = pf.load_model(name, start="chat")
    search = pf.Search(pf.TargetContinuation(lm, TARGET), pf.GCG(init=TEXT), pf.Greedy(), constraints=FREE)
    (beam,) = search.beams
    found = SwapEstimator(search.proposer.context, "lexical").changes(TEXT, beam.ids)  # type: ignore[attr-defined]
    logits, target, embeddings = by_hand(lm, TEXT)
    functional.cross_entropy(logits, target).backward()
    start = len(lm.start_ids)
    gradient = embeddings.grad[0, start : start + len(beam.ids)]
    expected = gradient @ lm.embedding_table.T
    expected = expected - expected.gather(1, torch.tensor(beam.ids)[:, None])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("name", [needs("smollm2")])
def test_gcg_lowers_the_loss_with_a_draft_of_another_tokenizer(name: str) -> None:
    lm = pf.load_model(name, start="chat")
    term = pf.TargetContinuation(lm, TARGET)
    method = pf.GCG(TEXT, top_k=64, batch=32, buffer=1, draft="mini-lm", probe=8)
    search = pf.Search(term, method, pf.Greedy(), constraints=FREE, steps=3)
    losses = [step.beams[0].value for step in search]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < term.exact(TEXT) - 0.05
    assert search.result().value == pytest.approx(losses[-1], abs=1e-3)
    # Probe sets of 4, at most (1 - rho) / 2 x 32 / 8 others a step, and the text to begin with.
    assert search.exact_evaluations <= 1 + 3 * (4 + 4)

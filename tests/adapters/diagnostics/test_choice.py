"""The transport that a short trial chooses."""

import json

import pytest
import torch

from promptfuse.adapters.diagnostics import choice
from promptfuse.objectives.transports import TRANSPORTS


@pytest.fixture(autouse=True)
def _few(monkeypatch, tmp_path):
    monkeypatch.setattr(choice, "TEXTS", 2)
    monkeypatch.setattr(choice, "WORDS", 24)
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path))


@pytest.fixture
def pair(model):
    lm, other = model("gpt2"), model("roberta")
    lm.__dict__.pop("_transport_trials", None)
    return lm, other


def test_the_best_by_rank_correlation_is_taken_and_said(pair, caplog):
    found = choice.trial(*pair)
    assert set(found["spearman"]) == set(TRANSPORTS) - {"t-product-paper"}
    assert all(-1 <= rho <= 1 for rho in found["spearman"].values())
    assert found["transport"] == max(found["spearman"], key=found["spearman"].get)
    assert len(set(found["spearman"].values())) >= 3
    assert caplog.text.count(f": {found['transport']} (rank correlation") == 1
    assert choice.best_transport(*pair) == found["transport"]
    assert caplog.text.count("rank correlation") == 1


def test_the_choice_is_the_same_with_and_without_the_cache(pair, tmp_path, monkeypatch):
    first = choice.trial(*pair)
    (path,) = (tmp_path / "adapters").glob("choice-*.json")
    assert json.loads(path.read_text()) == first
    pair[0].__dict__.pop("_transport_trials")
    path.write_text("{")
    assert choice.trial(*pair) == first
    pair[0].__dict__.pop("_transport_trials")
    monkeypatch.setattr(choice, "_try_all", None)
    assert choice.trial(*pair) == first


def test_the_figures_are_those_of_a_plain_loop(pair):
    """Of the lexical transport: the very words and texts, estimated and scored by hand."""
    lm, other = pair
    found = choice.trial(lm, other, seed=3)
    cases = choice.make_cases(lm, other, 2, (), 3)
    lexical = choice.LexicalTransport(lm, other, 2)
    order = torch.randperm(len(lexical.tokens), generator=torch.Generator().manual_seed(3))
    tokens = sorted(lexical.tokens[order[:24]].tolist())
    starts = choice.word_starts(lm.tokenizer)
    total = 0.0
    for case in cases:
        text = case.texts[0]
        truth = torch.tensor([case.term.exact(text + starts[token]) for token in tokens])
        scores = lm.next_log_probabilities(lm.plain_ids([text]))
        probe = lexical.expected_embedding((scores / 3).softmax(1))
        estimates = lexical.estimate(case.term.slot_gradient([text], probe, 2))[0, tokens]
        total += choice.spearman(estimates.double(), truth.double()) / 2
    assert found["spearman"]["lexical"] == pytest.approx(total, abs=0.02)


def test_a_model_that_cannot_be_tried_gets_the_lexical_transport(model):
    assert choice.best_transport(model("gpt2"), model("llama")) == "lexical"

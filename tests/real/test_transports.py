"""Transports between real models: what is claimed of them in docs/guide/which-transport.md, in small."""

from __future__ import annotations

import pytest
import torch

from promptfuse.adapters import EffectTransport, LexicalTransport
from promptfuse.adapters.diagnostics.ranking import recall, spearman
from promptfuse.adapters.effects import shape_of
from promptfuse.adapters.words import word_starts
from promptfuse.models import load_model
from promptfuse.objectives import TextSimilarity
from promptfuse.objectives.effects import measure_effects
from tests.real.packages import needs

TEXTS = {
    "Two girls are playing": "Children run around in a park.",
    "My brother has a new": "He bought a motorcycle last week.",
    "The soup was cold and the": "We did not like the restaurant at all.",
}


@pytest.mark.parametrize(("lm_name", "encoder_name"), [needs("smollm2", "minilm")])
def test_measured_effects_rank_words_better_than_the_gradient(lm_name: str, encoder_name: str) -> None:
    lm, encoder = load_model(lm_name), load_model(encoder_name)
    lexical = LexicalTransport(lm, encoder, 3)
    order = torch.randperm(len(lexical.tokens), generator=torch.Generator().manual_seed(0))[:256]
    tokens = lexical.tokens[order].sort().values
    starts = word_starts(lm.tokenizer)
    words = [starts[token] for token in tokens.tolist()]
    found, alone = measure_effects(encoder, words)
    every = torch.full((len(lexical.tokens), found.shape[1]), torch.nan)
    every[torch.searchsorted(lexical.tokens, tokens)] = found
    effects = EffectTransport(every, shape_of(alone), lm, encoder, 3)
    figures: dict[str, list[tuple[float, float]]] = {"lexical": [], "effects": []}
    for text, target in TEXTS.items():
        term = TextSimilarity(encoder, target)
        truth = term.score([text + word for word in words]).double()
        probabilities = (lm.next_log_probabilities(lm.plain_ids([text])) / 3).softmax(1)
        for name, transport in (("lexical", lexical), ("effects", effects)):
            estimates = transport.losses(term, [text], probabilities)[0, tokens].double()
            figures[name].append((spearman(estimates, truth), recall(estimates, truth, 10, 32)))
    lexical_mean, effects_mean = (
        torch.tensor(figures["lexical"]).mean(0),
        torch.tensor(figures["effects"]).mean(0),
    )
    assert bool((effects_mean > lexical_mean).all())
    assert effects_mean[0] > 0.6

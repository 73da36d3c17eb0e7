"""Guided decoding: its ranking as a naive loop computes it, and how its captions end."""

import math

import pytest
import torch

from promptfuse.evaluation.recipes.decoding import Language
from promptfuse.evaluation.recipes.guided import magic_scores
from promptfuse.search.scheduler import BatchScheduler
from tests.evaluation.recipes.conftest import quick


def naive_hidden(lm, ids):
    """Last hidden states of a row read whole, (tokens, d)."""
    rows = torch.tensor([ids])
    with torch.no_grad():
        return lm.module(input_ids=rows, output_hidden_states=True).hidden_states[-1][0]


def naive_step(describer, objective, text, tokens):
    """The ranking of tokens behind a text, by the definition, one candidate at a time."""
    recipe = describer.recipe
    lm = objective.primary
    clip = objective.terms["image"].model
    (ids,) = lm.plain_ids([text]) if text else ([],)
    start = [*lm.start_ids, *ids]
    with torch.no_grad():
        logits = lm.module(input_ids=torch.tensor([start])).logits[0, -1]
    chances = logits.softmax(-1)
    cosines = [1 - objective.exact(lm.tokenizer.decode([*ids, token])).terms["image"] for token in tokens]
    scaled = [math.exp(float(clip.module.logit_scale.exp()) * cosine) for cosine in cosines]
    context = naive_hidden(lm, start)
    scores = []
    for token, share in zip(tokens, scaled, strict=True):
        here = naive_hidden(lm, [*start, token])[-1]
        closest = max(torch.cosine_similarity(here, other, dim=0).item() for other in context)
        score = (1 - recipe.alpha) * chances[token].item()
        score += -recipe.alpha * closest + recipe.beta * share / sum(scaled)
        scores.append(score)
    return scores


def test_magic_scores_are_the_definition():
    generator = torch.Generator().manual_seed(0)
    candidates, context = (torch.randn(count, 5, generator=generator) for count in (3, 4))
    chances, match = torch.tensor([0.5, 0.3, 0.1]), torch.tensor([0.2, 0.7, 0.1])
    found = magic_scores(chances, candidates, context, match, 0.3, 1.5)
    for index in range(3):
        cosines = [torch.cosine_similarity(candidates[index], other, dim=0) for other in context]
        expected = 0.7 * chances[index] - 0.3 * max(cosines) + 1.5 * match[index]
        assert found[index] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.slow
def test_every_token_is_the_best_of_a_naive_ranking(photos):
    describer = quick("guided-decoding", top_k=6, alpha=0.2, beta=1.5, scale=None, steps=6)
    objective = describer.objective(photos[0])
    caption = describer(photos[0])
    language = Language(objective, "")
    lm = language.lm
    (ids,) = lm.plain_ids([caption.text])
    for step, token in enumerate(ids):
        text = lm.tokenizer.decode(ids[:step])
        scores = lm.next_log_probabilities([ids[:step]], reuse=False)[0]
        allowed = language.usable if step else language.inner
        ranked = scores.masked_fill(~allowed, -torch.inf).topk(40).indices.tolist()
        ranked = [one for one in ranked if one not in lm.end_ids]
        kept = [
            one
            for one, found in zip(ranked, language.texts([[*ids[:step], one] for one in ranked]), strict=True)
            if found is not None
        ][:6]
        naive = naive_step(describer, objective, text, kept)
        assert token in kept
        assert naive[kept.index(token)] == pytest.approx(max(naive), abs=1e-4)


def test_without_the_photo_it_is_greedy_decoding(photos):
    describer = quick("guided-decoding", alpha=0, beta=0, top_k=3)
    caption = describer(photos[0])
    assert caption.text == describer(photos[1]).text
    lm = describer.captioner.model("lm")
    (ids,) = lm.plain_ids([caption.text])
    scores = lm.next_log_probabilities([ids[:3]])[0]
    assert int(scores.argmax()) == ids[3]


def test_captions_end_as_sentences_and_say_when_not(photos):
    whole = quick("guided-decoding")(photos[1])
    assert whole.complete
    assert whole.text.endswith((".", "!", "?"))
    cut = quick("guided-decoding", steps=2)(photos[1])
    assert not cut.complete
    assert 1 <= len(cut.text.split()) <= 2


def test_only_texts_that_the_photo_has_judged_are_counted(photos, monkeypatch):
    describer = quick("guided-decoding", steps=3, top_k=5)
    scored = []
    term = type(describer.objective(photos[0]).terms["image"])
    whole = term.score
    monkeypatch.setattr(
        term,
        "score",
        lambda self, texts, *rest, **more: scored.extend(texts) or whole(self, texts, *rest, **more),
    )
    caption = describer(photos[0])
    assert caption.exact_evaluations == len(scored) == len(set(scored)) == 15


def test_the_same_in_any_company_and_for_any_seed(photos):
    describer = quick("guided-decoding", steps=5, top_k=8)
    alone = [describer(photo) for photo in photos[:4]]
    found = {}

    def worker(number):
        found[number] = describer(photos[number], seed=number)

    BatchScheduler().run([lambda number=number: worker(number) for number in range(4)])
    assert [found[number].text for number in range(4)] == [caption.text for caption in alone]


def test_a_sentiment_is_a_part_of_the_ranking(photos):
    plain, coloured = quick("guided-decoding"), quick("guided-decoding", sentiment="positive", gamma=100)
    found = coloured(photos[0])
    given = plain(photos[0]).text
    tone = coloured.objective(photos[0]).terms["sentiment"]
    assert found.terms["sentiment"] < tone.exact(given)


def test_steers_are_parts_of_the_ranking_too(photos):
    found = quick("guided-decoding", steer=["mini-tone:negative=1"], gamma=100, top_k=8)(photos[0])
    (name,) = set(found.terms) - {"fluency", "image"}
    assert found.terms[name] < 0.7  # more than half of the probability


def test_a_prefix_and_the_models_room(photos):
    found = quick("guided-decoding", prefix="A photo of", steps=3, top_k=4)(photos[0])
    assert found.text.startswith("A photo of ")
    assert len(found.text.split()) > 3
    longest = quick("guided-decoding", steps=400, top_k=2, alpha=0, beta=0)(photos[0])
    assert longest.text

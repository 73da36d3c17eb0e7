"""The search as a recipe: what the caption task finds, scored from scratch, whoever is in flight."""

import pytest
import torch

import promptfuse as pf
from promptfuse.errors import ConfigError, ImageError
from promptfuse.search import AutoDAN, Chain, Polish
from promptfuse.search.methods.guidance import Guidance, word_token
from promptfuse.search.scheduler import BatchScheduler
from tests.evaluation.recipes.conftest import quick

FEW = {"steps": 4, "beams": 2, "candidates": 5}


@pytest.mark.slow
def test_it_is_the_caption_task(photos):
    found = quick("ours", **FEW)(photos[0], seed=3)
    result = pf.caption(photos[0], seed=3, **FEW)
    assert (found.text, found.complete) == (result.text, result.complete)
    assert found.exact_evaluations == result.exact_evaluations
    assert found.value == pytest.approx(result.value, abs=1e-5)
    assert found.weights == result.weights


@pytest.mark.slow
def test_the_value_is_scored_from_scratch_whoever_is_in_flight(photos):
    describer = quick("ours", **FEW)
    captions = {}

    def worker(number):
        captions[number] = describer(photos[number])

    BatchScheduler().run([lambda number=number: worker(number) for number in range(4)])
    for number, caption in captions.items():
        objective = pf.Captioner("mini").objective(photos[number])
        exact = objective.exact(caption.text)
        assert (caption.value, caption.terms) == (exact.value, exact.terms)  # to the last bit
        assert describer(photos[number]).text == caption.text


def test_score_and_finish_agree(photos):
    describer = quick("ours")
    given = describer.score(photos[1], "A dog runs.", True, 7)
    assert given == describer.finish(describer.objective(photos[1]), "A dog runs.", True, 7)


def test_every_setting_reaches_the_search():
    describer = quick(
        "ours", candidates=7, gain=0.5, adapt_gain=False, subtokens=3, probe_temperature=2.0, probe="the",
        polish_steps=2, polish_candidates=9, transport="none", steps=6, openings=5,
    )  # fmt: skip
    expected = AutoDAN(
        7, "none", gain=0.5, adapt_gain=False, subtokens=3, probe_temperature=2.0, probe="the", openings=5
    )
    assert describer.method == Chain(expected, Polish(9), steps=(6, 2))
    preset = quick("ours").captioner.preset
    assert quick("ours").method == AutoDAN(
        candidates=preset.candidates, subtokens=preset.subtokens, openings=preset.openings
    )


def test_patience_ends_the_search_sooner_or_never(photos):
    some = {"beams": 2, "candidates": 4, "steps": 16}
    short, whole = (quick("ours", patience=patience, **some)(photos[0]) for patience in (1, 1000))
    assert short.exact_evaluations < whole.exact_evaluations
    assert whole.value <= short.value + 1e-6


def test_polish_only_improves(photos):
    plain = quick("ours", **FEW)(photos[0])
    polished = quick("ours", polish_steps=2, polish_candidates=16, **FEW)(photos[0])
    assert polished.value <= plain.value + 1e-6
    assert polished.exact_evaluations > plain.exact_evaluations


@pytest.mark.slow
def test_the_papers_transport_is_fitted_on_load(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path))
    describer = pf.evaluation.recipes.load_recipe("paper", steps=3, beams=2, candidates=4).build()
    describer.load()
    assert list(tmp_path.glob("adapters/*paper*"))
    assert describer(photos[0]).text


def test_a_probe_is_a_word_of_the_language_model(photos):
    describer = quick("ours", probe="the", **FEW)
    lm = describer.captioner.model("lm")
    assert lm.tokenizer.decode([word_token(lm, "the")]) == " the"
    objective = describer.objective(photos[0])
    fixed, usual = (
        Guidance(objective, lm, method) for method in (describer.method, quick("ours", **FEW).method)
    )
    scores = lm.next_log_probabilities([[], []])
    texts = ["A cat", "Two dogs"]
    found = fixed.estimate(texts, scores)["image"]
    assert not torch.allclose(found, usual.estimate(texts, scores)["image"], equal_nan=True)
    # The estimate at the probe itself is its true loss, which no other word's is.
    exact = torch.tensor([objective.exact(f"{text} the").terms["image"] for text in texts])
    assert torch.allclose(found[:, word_token(lm, "the")], exact, atol=1e-4)
    with pytest.raises(ConfigError, match="'xylograph' is not a single token of mini-lm"):
        quick("ours", probe="xylograph")


def test_sentiment_is_a_term(photos):
    found = quick("ours", sentiment="positive", **FEW)(photos[0])
    assert set(found.terms) == {"fluency", "image", "sentiment"}
    assert "sentiment" in quick("ours", sentiment="positive").models()


def test_bad_input_has_errors_of_the_package(tmp_path):
    with pytest.raises(ImageError):
        quick("ours")(tmp_path / "none.jpg")
    with pytest.raises(ConfigError):
        quick("ours", models="none")

"""The ranking of candidates against the true changes of the objective, for every sign of the weights."""

from itertools import product
from pathlib import Path

import pytest
import torch

import promptfuse as pf
from promptfuse.adapters.diagnostics.choice import best_transport
from promptfuse.adapters.diagnostics.ranking import spearman
from promptfuse.search.methods import guidance as guiding
from promptfuse.search.methods.guidance import Guidance
from tests.search.conftest import FREE

PHOTO = Path(__file__).parents[3] / "examples" / "photos" / "golden_retriever.jpg"
BEAM = "The dog is"
SIGNS = list(product((1, -1), repeat=3))


@pytest.fixture(scope="module")
def captioner() -> pf.Captioner:
    captioner = pf.Captioner("mini")
    captioner.load("positive")
    return captioner


def signed(captioner: pf.Captioner, fluency: float, image: float, tone: float) -> pf.Objective:
    return pf.Objective(
        pf.Fluency(captioner.model("lm"), fluency),
        pf.ImageSimilarity(captioner.model("image_text"), PHOTO, image),
        pf.ClassProbability(captioner.model("sentiment"), "positive", tone),
    )


def ranking(objective: pf.Objective, method: pf.AutoDAN, beam: str) -> tuple[torch.Tensor, dict]:
    """Scores of the next token of one text, and the estimates behind them."""
    lm = objective.primary
    (ids,) = lm.plain_ids([beam])
    guidance = Guidance(objective, lm, method)
    chances = lm.next_log_probabilities([ids])
    estimates = guidance.estimate([beam], chances)
    return guidance.scores(objective, estimates, chances, [len(ids)])[0], estimates


@pytest.mark.slow
@pytest.mark.parametrize("signs", SIGNS, ids=lambda signs: "".join("+" if one > 0 else "-" for one in signs))
def test_ranking_follows_the_true_changes_for_every_sign(captioner, signs):
    """Each term by itself, beside a fluency of either sign, and all together."""
    weights = [number * sign for number, sign in zip((0.5, 6.0, 2.0), signs, strict=True)]
    objective = signed(captioner, *weights)
    scores, _ = ranking(objective, pf.AutoDAN(transport="lexical"), BEAM)
    lm = objective.primary
    words = [index for index in range(len(lm.tokenizer)) if lm.tokenizer.decode([index])[:1] == " "]
    words = words[:: max(1, len(words) // 300)]
    losses = objective.score([BEAM + lm.tokenizer.decode([index]) for index in words])
    true = objective.totals(losses)
    assert spearman(-scores[words], true) > 0.3
    # What the terms besides fluency add to the scores goes with their own true change.
    alone, _ = ranking(objective, pf.AutoDAN(transport="none"), BEAM)
    added = (alone - scores)[words]
    others = (
        objective.terms["image"].weight * losses["image"] + objective.terms["class"].weight * losses["class"]
    )
    assert spearman(added, others) > 0.15


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["lexical", "t-product"])
@pytest.mark.parametrize("ridge", [None, 1.0])
def test_the_other_terms_are_ranked_alike_beside_either_sign_of_the_fluency(captioner, transport, ridge):
    method = pf.AutoDAN(transport=transport, ridge=ridge)
    up, _ = ranking(signed(captioner, 0.5, 6.0, -2.0), method, BEAM)
    down, _ = ranking(signed(captioner, -0.5, 6.0, -2.0), method, BEAM)
    chances = captioner.model("lm").next_log_probabilities([captioner.model("lm").plain_ids([BEAM])[0]])[0]
    torch.testing.assert_close(up - chances, down + chances, atol=1e-4, rtol=1e-4)


def test_all_fluency_terms_of_the_primary_count(captioner):
    lm = captioner.model("lm")
    both = pf.Objective(pf.Fluency(lm, 1.0), pf.Fluency(lm, -3.0, length_exponent=0.5))
    count = torch.tensor([4.0, 12.0])
    expected = 1 / count - 3 / (count.sqrt() * 12**0.5)
    torch.testing.assert_close(guiding.fluency_share(both, count), expected)
    scores, _ = ranking(both, pf.AutoDAN(), BEAM)
    # Their sum is negative here, so the unlikeliest tokens come first.
    chances = lm.next_log_probabilities([lm.plain_ids([BEAM])[0]])[0]
    assert int(scores.argmax()) == int(chances.argmin())
    # Two that cancel leave the ranking to the other terms.
    even = pf.Objective(
        pf.Fluency(lm, 1.0),
        pf.Fluency(lm, -1.0),
        pf.ImageSimilarity(captioner.model("image_text"), PHOTO, 5.0),
    )
    scores, estimates = ranking(even, pf.AutoDAN(), BEAM)
    known = estimates["image"][0].isfinite()
    assert int(scores[known].argmax()) == int(estimates["image"][0][known].argmin())


@pytest.mark.parametrize(("image", "tone"), [(5.5, 1.5), (5.5, -1.5), (-5.5, 1.5), (-5.5, -1.5)])
def test_with_gradients_a_search_away_from_fluency_ends_no_worse(captioner, image, tone):
    found = {}
    for transport in ("none", "lexical"):
        objective = signed(captioner, -0.2, image, tone)
        search = pf.Search(objective, pf.AutoDAN(16, transport=transport), pf.BeamSearch(3), steps=4)
        beams = [beam for step in search for beam in step.beams]
        found[transport] = min(beam.value for beam in beams)
    assert found["lexical"] < found["none"]
    likely = pf.Search(signed(captioner, 0.2, image, tone), pf.AutoDAN(16), pf.BeamSearch(3), steps=4)
    best = min((beam for step in likely for beam in step.beams), key=lambda item: item.value)
    # A text that was searched for with the fluency the other way round is worse by this objective.
    assert found["lexical"] < signed(captioner, -0.2, image, tone).exact(best.text).value


def test_polish_proposes_what_lowers_the_objective_away_from_fluency(captioner):
    text = "A dog runs on the beach."
    objective = pf.Objective(pf.Fluency(captioner.model("lm"), -1.0))
    method = pf.Polish(24, ("replace",), init=text)
    result = pf.Search(objective, method, pf.Greedy(), steps=3, constraints=FREE).run()
    # Three words nobody expects: more than nine nats for each token, where the text has less than two.
    assert objective.exact(text).value > -2
    assert result.value < -9


def test_a_transport_that_was_chosen_by_a_trial_is_in_the_result(puzzle):
    method = pf.AutoDAN(4, transport="auto")
    result = pf.Search(puzzle.objective, method, pf.Greedy(), steps=2, constraints=FREE).run()
    model = puzzle.objective.terms["class"].model
    assert result.models["class"]["transport"] == best_transport(puzzle.objective.primary, model)
    assert "transport" not in result.models["fluency"]
    plain = pf.Search(puzzle.objective, pf.AutoDAN(4), pf.Greedy(), steps=2, constraints=FREE).run()
    assert "transport" not in plain.models["class"]


def test_measured_effects_start_with_a_gain_of_one(puzzle):
    lm = puzzle.objective.primary
    gains = [
        Guidance(puzzle.objective, lm, pf.AutoDAN(transport=kind)).gains["class"].value
        for kind in ("lexical", "effects")
    ]
    assert gains == [0.2, 1.0]

"""What a search has seen corrects its estimates: known answers, and the textbook's primal solution."""

import json
from pathlib import Path

import pytest
import torch

import promptfuse as pf
from promptfuse.adapters import LexicalTransport
from promptfuse.errors import ConfigError
from promptfuse.search.methods.surrogate import MOST_OBSERVATIONS, Surrogate

PHOTO = Path(__file__).parents[3] / "examples/photos/golden_retriever.jpg"


@pytest.fixture(scope="module")
def captioner():
    captioner = pf.Captioner("mini")
    captioner.load()
    return captioner


@pytest.fixture(scope="module")
def carrier(captioner):
    return LexicalTransport(captioner.model("lm"), captioner.model("image_text"), 2)


def draw(carrier, count, seed):
    order = torch.randperm(len(carrier.tokens), generator=torch.Generator().manual_seed(seed))
    return carrier.tokens[order[:count]].tolist()


def test_direction_is_the_ridge_regression_of_the_primal_form(carrier):
    surrogate, generator = Surrogate(carrier, 2.0), torch.Generator().manual_seed(0)
    rows, left, gain = [], [], 0.3
    for seed, count in enumerate((6, 9, 2)):
        tokens = draw(carrier, count, seed)
        estimated, true = torch.randn(2, count, generator=generator)
        surrogate.observe(tokens, estimated, true)
        features = carrier.embeddings_of(tokens)
        rows.append(features - features.mean(0))
        change = true - gain * estimated
        left.append(change - change.mean())
    x, r = torch.cat(rows).double(), torch.cat(left).double()
    penalty = 2.0 * x.square().sum(1).mean() * torch.eye(x.shape[1])
    expected = torch.linalg.solve(x.T @ x + penalty, x.T @ r)
    assert torch.allclose(surrogate.direction(gain).double(), expected, atol=1e-5)


def test_unseen_words_are_ranked_by_what_the_estimate_missed(carrier):
    """The true loss is linear in the words, and the estimate knows nothing of it."""
    direction = torch.randn(carrier.word_embeddings().shape[1], generator=torch.Generator().manual_seed(3))
    surrogate = Surrogate(carrier, 0.1)
    assert surrogate.correction(0.2) is None
    for seed in range(12):
        tokens = draw(carrier, 32, seed)
        surrogate.observe(tokens, torch.zeros(32), carrier.embeddings_of(tokens) @ direction + seed)
    seen = {token for group in surrogate.seen for token in group.tokens}
    unseen = torch.tensor([token for token in carrier.tokens.tolist() if token not in seen])
    found, true = surrogate.correction(0.2)[unseen], carrier.along(direction)[unseen]
    assert float(torch.corrcoef(torch.stack([found, true]))[0, 1]) > 0.8


def test_estimates_that_are_right_need_no_correction(carrier):
    surrogate = Surrogate(carrier, 1.0)
    tokens, true = draw(carrier, 10, 0), torch.randn(10, generator=torch.Generator().manual_seed(1))
    surrogate.observe(tokens, true / 0.25 + 7, true)
    correction = surrogate.correction(0.25)
    assert float(correction.nan_to_num().abs().max()) < 1e-5


def test_alike_words_say_nothing(carrier):
    surrogate, (token,) = Surrogate(carrier, 1.0), draw(carrier, 1, 0)
    surrogate.observe([token, token], torch.zeros(2), torch.tensor([1.0, 2.0]))
    assert surrogate.correction(0.2) is None


def test_what_lies_far_back_is_forgotten_and_the_rest_survives_saving(carrier):
    surrogate = Surrogate(carrier, 1.0)
    generator = torch.Generator().manual_seed(0)
    for seed in range(12):
        surrogate.observe(draw(carrier, 60, seed), *torch.randn(2, 60, generator=generator))
    assert sum(len(group.tokens) for group in surrogate.seen) <= MOST_OBSERVATIONS
    assert [group.tokens for group in surrogate.seen] == [draw(carrier, 60, seed) for seed in range(4, 12)]
    again = Surrogate(carrier, 1.0)
    again.load_state_dict(json.loads(json.dumps(surrogate.state_dict())))
    assert torch.equal(again.direction(0.3), surrogate.direction(0.3))


@pytest.mark.slow
def test_a_search_learns_from_its_steps_and_scores_as_exactly(captioner):
    results = [captioner(PHOTO, method=pf.AutoDAN(6, ridge=0.3), steps=5, beams=3) for _ in range(2)]
    assert results[0].history[-1].beams == results[1].history[-1].beams
    search = captioner.search(PHOTO, method=pf.AutoDAN(6, ridge=0.3), steps=5, beams=3)
    search.run()
    guidance = search.proposer.guidance
    (surrogate,) = guidance.surrogates.values()
    assert sum(len(group.tokens) for group in surrogate.seen) > 20
    assert float(surrogate.correction(guidance.gains["image"].value).nan_to_num().abs().max()) > 1e-3
    for beam in search.beams:
        assert search.objective.exact(beam.text).value == pytest.approx(beam.value, abs=1e-4)


def test_the_ranking_of_tokens_follows_what_was_seen(captioner):
    search = captioner.search(PHOTO, method=pf.AutoDAN(6, ridge=0.3), steps=5, beams=3)
    search.step(), search.step()
    guidance, primary = search.proposer.guidance, search.objective.primary
    chances = primary.next_log_probabilities([beam.ids for beam in search.beams])
    estimates = guidance.estimate([beam.text for beam in search.beams], chances)
    lengths = [len(beam.ids) for beam in search.beams]
    corrected = guidance.scores(search.objective, estimates, chances, lengths)
    guidance.surrogates["image"].seen.clear()
    plain = guidance.scores(search.objective, estimates, chances, lengths)
    known = torch.isfinite(estimates["image"])
    assert not torch.allclose(corrected[known], plain[known], atol=1e-3)
    assert torch.allclose(corrected[~known], plain[~known])


@pytest.mark.parametrize("ridge", [0.0, 1e-7, -1.0, float("inf")])
def test_penalties_out_of_range_are_refused(ridge):
    with pytest.raises(ConfigError, match="ridge"):
        pf.AutoDAN(ridge=ridge)


def test_the_smallest_penalty_is_solved_and_many_siblings_leave_room_for_others(carrier):
    surrogate, generator = Surrogate(carrier, 1e-6), torch.Generator().manual_seed(0)
    for _ in range(9):  # The same words again and again: the kernel is as good as singular.
        surrogate.observe(draw(carrier, 200, 0), *torch.randn(2, 200, generator=generator))
    assert [len(group.tokens) for group in surrogate.seen] == [64] * 8
    direction = surrogate.direction(0.2)
    assert direction is None or bool(torch.isfinite(direction).all())


def test_losses_that_are_no_number_correct_nothing(carrier):
    surrogate = Surrogate(carrier, 1.0)
    surrogate.observe(draw(carrier, 3, 0), torch.zeros(3), torch.tensor([1.0, float("nan"), 2.0]))
    assert surrogate.correction(0.2) is None


def test_searches_saved_before_there_were_surrogates_go_on(captioner):
    whole = captioner.search(PHOTO, method=pf.AutoDAN(6), steps=4, beams=3).run()
    search = captioner.search(PHOTO, method=pf.AutoDAN(6), steps=4, beams=3)
    search.step(), search.step()
    state = json.loads(json.dumps(search.state_dict()))
    del state["config"]["method"]["ridge"]
    state["proposer"] = state["proposer"]["gains"]
    again = captioner.search(PHOTO, method=pf.AutoDAN(6), steps=4, beams=3)
    again.load_state_dict(state)
    assert again.run().text == whole.text

"""What later papers added to GCG: several swaps, a buffer, momentum, probe sampling."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

import promptfuse as pf
from promptfuse.adapters.diagnostics.ranking import spearman
from promptfuse.errors import ConfigError
from promptfuse.search.methods.swaps import SwapEstimator
from tests.search.conftest import FREE, KnownAnswer

START = "runs the runs dog"


def searching(
    puzzle: KnownAnswer, objective: Any = None, steps: int = 6, seed: int = 0, **options: Any
) -> pf.Search:
    settings = {"init": START, "top_k": 6, "batch": 8} | {
        key: options.pop(key) for key in list(options) if key in pf.GCG.__dataclass_fields__
    }
    return pf.Search(
        objective or puzzle.objective,
        pf.GCG(**settings),
        pf.Greedy(),
        steps=steps,
        patience=steps,
        constraints=FREE,
        seed=seed,
        **options,
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1, 1, 1, 1, 1]),
        ({"swaps": 3}, [3, 3, 3, 3, 3]),
        ({"swaps": 4, "last_swaps": 1, "swap_steps": 4}, [4, 3, 2, 1, 1]),
        ({"swaps": 1, "last_swaps": 3, "swap_steps": 3}, [1, 2, 3, 3, 3]),
        ({"swaps": 4, "last_swaps": 1, "swap_steps": 1}, [4, 1, 1, 1, 1]),
    ],
)
def test_the_number_of_swaps_goes_down_in_a_line(settings: Any, expected: list[int]) -> None:
    method = pf.GCG(**settings)
    assert [method.swaps_at(step) for step in range(5)] == expected


@pytest.mark.parametrize("swaps", [1, 2, 3])
def test_proposals_have_so_many_of_the_best_swaps(puzzle: KnownAnswer, swaps: int) -> None:
    search = searching(puzzle, swaps=swaps, batch=20, top_k=3)
    (beam,) = search.beams
    proposer = search.proposer
    changes = SwapEstimator(proposer.context, "lexical").changes(beam.text, beam.ids)  # type: ignore[attr-defined]
    changes[:, ~proposer.allowed] = torch.inf
    changes[torch.arange(4), torch.tensor(beam.ids)] = torch.inf
    best = changes.topk(3, largest=False).indices.tolist()
    found = proposer.propose(search.beams).texts
    assert len({item.text for item in found}) == len(found) >= min(20, 12)
    places = set()
    for item in found:
        moved = [at for at in range(4) if item.ids[at] != beam.ids[at]]
        assert len(moved) == swaps
        assert all(item.ids[at] in best[at] for at in moved)
        places.add(tuple(moved))
    assert len(places) > 2


def test_more_swaps_than_tokens_swap_all(puzzle: KnownAnswer) -> None:
    search = searching(puzzle, swaps=9)
    (beam,) = search.beams
    for item in search.proposer.propose(search.beams).texts:
        assert all(one != other for one, other in zip(item.ids, beam.ids, strict=True))


def test_a_buffer_begins_with_the_best_of_several_and_never_gets_worse(puzzle: KnownAnswer) -> None:
    search = searching(puzzle, buffer=5, steps=8)
    assert search.beams[0].text == START
    assert len(search.beams) == 5
    assert all(len(beam.ids) == 4 for beam in search.beams)
    texts = [beam.text for beam in search.beams]
    first = search.step()
    assert first.proposed == 5
    assert first.beams[0].text == min(texts, key=lambda text: puzzle.objective.exact(text).value)
    assert first.beams[0].value == pytest.approx(
        min(puzzle.objective.exact(text).value for text in texts), abs=1e-4
    )
    values = [first.beams[0].value, *(step.beams[0].value for step in search)]
    assert all(after <= before for before, after in pairwise(values))


def test_a_buffer_of_one_keeps_the_best_where_plain_gcg_goes_on_with_a_worse_text(
    puzzle: KnownAnswer,
) -> None:
    """Few random swaps a step: some step finds nothing better."""

    def values(buffer: int) -> list[float]:
        search = searching(puzzle, buffer=buffer, batch=2, steps=12)
        return [step.beams[0].value for step in search]

    assert any(after > before for before, after in pairwise(values(0)))
    kept = values(1)
    assert all(after <= before for before, after in pairwise(kept))
    assert any(after == before for before, after in pairwise(kept))


def test_momentum_is_the_mean_of_the_gradients_so_far(puzzle: KnownAnswer) -> None:
    search = searching(puzzle, momentum=0.6, steps=3)
    estimator = SwapEstimator(search.proposer.context, "lexical")  # type: ignore[attr-defined]
    expected = None
    for _ in range(3):
        (beam,) = search.beams
        own = estimator.changes(beam.text, beam.ids)
        expected = own if expected is None else 0.6 * expected + 0.4 * own
        search.step()
        torch.testing.assert_close(search.proposer.averages, {beam.text: expected})  # type: ignore[attr-defined]
    assert not torch.allclose(expected, own, atol=1e-3)


def test_momentum_changes_which_swaps_are_drawn(puzzle: KnownAnswer) -> None:
    found = [
        [step.best.text for step in searching(puzzle, momentum=m, top_k=2, batch=3, seed=1)]
        for m in (0.0, 0.9)
    ]
    assert found[0][0] == found[1][0]  # The first step has no past.
    assert found[0] != found[1]


OPTIONS: dict[str, dict[str, Any]] = {
    "swaps": {"swaps": 3, "last_swaps": 1, "swap_steps": 4},
    "buffer": {"buffer": 3, "swaps": 2},
    "momentum": {"momentum": 0.6},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_caches_and_batches_change_nothing(puzzle: KnownAnswer, options: dict[str, Any]) -> None:
    runs = [
        [(beam.text, step.proposed) for step in searching(puzzle, **options, **how) for beam in step.beams]
        for how in ({}, {"batch_size": 1}, {"exact": True})
    ]
    assert runs[0] == runs[1] == runs[2]
    assert runs[0] != [
        (beam.text, step.proposed) for step in searching(puzzle, seed=5, **options) for beam in step.beams
    ]


# ------------------------------------------------------------------------------------ probe sampling


@pytest.fixture
def saying(puzzle: KnownAnswer) -> pf.Objective:
    return pf.Objective(pf.TargetContinuation(puzzle.objective.primary, " fox ."))


def drafted(puzzle: KnownAnswer, saying: pf.Objective, draft: str, **options: Any) -> pf.Search:
    return searching(puzzle, saying, batch=24, draft=draft, probe=4, reduction=2, **options)


def test_a_draft_of_another_tokenizer_chooses_as_the_paper_says(
    puzzle: KnownAnswer, saying: pf.Objective
) -> None:
    search = drafted(puzzle, saying, "mini-lm")
    (beam,) = search.beams
    everything = search.proposer.__class__.propose  # The same draws, without a draft.
    plain = searching(puzzle, saying, batch=24)
    texts = [item.text for item in everything(plain.proposer, plain.beams).texts]
    assert len(texts) == 24
    chosen = search.proposer.propose(search.beams)
    probed = list(chosen.scored)
    assert len(probed) == 6
    term = pf.TargetContinuation(pf.load_model("mini-lm"), " fox .")
    guesses = {text: term.exact(text) for text in texts}
    exact = {text: saying.exact(text).value for text in texts}
    for text, losses in chosen.scored.items():
        assert losses == {"target": pytest.approx(exact[text], abs=1e-4)}
    rho = spearman(
        torch.tensor([guesses[text] for text in probed]), torch.tensor([exact[text] for text in probed])
    )
    kept = max(1, int((1 - rho) / 2 * 24 / 2))
    best = sorted(texts, key=guesses.__getitem__)[:kept]
    assert {item.text for item in chosen.texts} == {*probed, *best}
    assert beam.text not in probed


def test_a_draft_that_is_the_model_itself_misses_nothing(
    puzzle: KnownAnswer, saying: pf.Objective, lookup_models: Any
) -> None:
    search = drafted(puzzle, saying, str(lookup_models[0]))
    step, plain = search.step(), searching(puzzle, saying, batch=24).step()
    assert step.beams[0].text == plain.beams[0].text
    assert step.beams[0].value == pytest.approx(plain.beams[0].value, abs=1e-5)
    # The start, the probe set, and at most the best, which the draft knows.
    assert step.proposed in (1 + 6, 1 + 7)
    assert plain.proposed == 1 + 24


def test_probed_texts_are_scored_once_and_counted_once(
    puzzle: KnownAnswer, saying: pf.Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = drafted(puzzle, saying, "mini-lm", steps=3)
    scored: list[str] = []
    original = saying.score

    def score(texts: Any, **rest: Any) -> Any:
        scored.extend(texts)
        return original(texts, **rest)

    monkeypatch.setattr(search.objective, "score", score)
    result = search.run()
    assert len(scored) == result.exact_evaluations
    assert result.value == pytest.approx(saying.exact(result.text).value, abs=1e-5)


def test_with_a_draft_the_number_of_evaluations_is_never_exceeded(
    puzzle: KnownAnswer, saying: pf.Objective
) -> None:
    stopping = pf.Stopping(steps=9, patience=9, evaluations=37)
    method = pf.GCG(START, 6, 24, draft="mini-lm", probe=4, reduction=2)
    result = pf.Search(saying, method, pf.Greedy(), stopping=stopping, constraints=FREE).run()
    assert result.exact_evaluations == 37


def test_a_search_with_a_draft_resumes(puzzle: KnownAnswer, saying: pf.Objective) -> None:
    search = drafted(puzzle, saying, "mini-lm")
    search.step()
    saved = search.state_dict()
    search.run()
    resumed = drafted(puzzle, saying, "mini-lm", batch_size=2)
    resumed.load_state_dict(saved)
    resumed.run()
    assert len(resumed.history) == len(search.history) == 6
    for one, other in zip(resumed.history, search.history, strict=True):
        assert [beam.text for beam in one.beams] == [beam.text for beam in other.beams]
        assert one.proposed == other.proposed


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"swaps": 0}, "swaps: must be at least 1"),
        ({"last_swaps": 0}, "last_swaps: must be at least 1"),
        ({"buffer": -1}, "buffer: must be at least 0"),
        ({"momentum": 1.0}, "momentum: 1.0 is out of range"),
        ({"probe": 0}, "probe: must be at least 1"),
    ],
)
def test_options_that_are_out_of_range(settings: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        pf.GCG(**settings)


def test_drafts_that_cannot_be(puzzle: KnownAnswer, saying: pf.Objective) -> None:
    with pytest.raises(ConfigError, match="draft: it judges targets; add a TargetContinuation"):
        searching(puzzle, draft="mini-lm")
    with pytest.raises(ConfigError, match=r"draft: mini-tone is a .*; give a causal language model"):
        drafted(puzzle, saying, "mini-tone")


def test_options_that_are_not_used_are_not_among_the_settings() -> None:
    """So that searches of earlier versions can be resumed."""
    assert pf.GCG().describe().keys() == {"name", "init", "top_k", "batch", "transport"}
    assert pf.GCG(momentum=0.6).describe()["momentum"] == 0.6

"""Every method with every strategy finds the text that trying all texts finds."""

import pytest

import promptfuse as pf
from tests.search.conftest import CHAINS, FREE

STRATEGIES = [pf.Greedy(), pf.BeamSearch(3), pf.BeamSearch(3, diverse=0.1), pf.UniformCost()]
APPEND = [
    pf.AutoDAN(8),
    pf.AutoDAN(8, transport="t-product"),
    pf.AutoDAN(8, transport="sparse-sums"),
    pf.AutoDAN(8, transport="effects", ridge=1.0),
    pf.AutoDAN(8, transport="auto"),
    pf.AutoDAN(8, transport="none"),
    pf.RandomAppend(8),
]
START = "runs the runs dog"
EDIT = [
    pf.GCG(init=START, top_k=6, batch=12),
    pf.GCG(init=START, top_k=6, batch=12, transport="t-product"),
    pf.GCG(init=START, top_k=6, batch=12, transport="landmark-pca"),
    pf.GCG(init=START, top_k=6, batch=12, transport="effects"),
    pf.GCG(init=START, top_k=6, batch=12, swaps=2, last_swaps=1, swap_steps=8),
    pf.GCG(init=START, top_k=6, batch=12, buffer=4, swaps=2),
    pf.GCG(init=START, top_k=6, batch=12, momentum=0.6),
    pf.PEZ(length=4, weight_decay=1.0, updates=32),
    pf.RandomSearch(length=4, radius=4, candidates=32),
    pf.RandomSearch(ball="l2", radius=1.5, init=START, candidates=32),
    pf.Polish(init="runs the old .", moves=("replace",)),
]


def names(value: object) -> str:
    return repr(value)


def test_the_lookup_tables_are_what_they_say(puzzle):
    lm = puzzle.objective.primary
    log_probabilities = lm.next_log_probabilities([[], lm.plain_ids(["a"])[0], lm.plain_ids(["the old"])[0]])
    assert [lm.tokenizer.decode([int(row.argmax())]) for row in log_probabilities[1:]] == ["red", "dog"]
    assert lm.plain_ids(["a red fox ."])[0] == [2, 3, 4, 9]
    classifier = puzzle.objective.terms["class"].model
    assert len(classifier.tokenizer("fox")["input_ids"]) == 2
    batch = classifier.encode(["fox red", "red fox", "old dog", "dog old"])
    good = classifier.log_probabilities(batch)[:, 0].exp()
    assert good.min(0).indices > 1
    assert (good[:2] > 0.7).all()


def test_the_answer_is_the_liked_chain(puzzle):
    assert puzzle.best(4)[0] == " ".join(CHAINS[0][1:])
    assert puzzle.best(4, " .")[0] == " ".join(CHAINS[0][1:])


@pytest.mark.parametrize("strategy", STRATEGIES, ids=names)
@pytest.mark.parametrize("method", APPEND, ids=names)
def test_appending_finds_the_best_sentence(puzzle, method, strategy):
    text, value = puzzle.best(4, ".")
    result = pf.Search(puzzle.objective, method, strategy, steps=12, patience=12, constraints=FREE).run()
    assert (result.text, result.value) == (text, pytest.approx(value, abs=1e-4))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=names)
@pytest.mark.parametrize("method", EDIT, ids=names)
def test_editing_finds_the_best_text_of_its_length(puzzle, method, strategy):
    text, value = puzzle.best(4)
    # Enough is enough: the test is whether the best text is reached.
    stopping = pf.Stopping(steps=60, patience=60, value=value + 1e-4)
    result = pf.Search(puzzle.objective, method, strategy, stopping=stopping, constraints=FREE).run()
    assert (result.text, result.value) == (text, pytest.approx(value, abs=1e-4))


def test_polish_reaches_the_best_text_from_another_length(puzzle):
    best = min((puzzle.best(length) for length in range(1, 5)), key=lambda answer: answer[1])
    for init in ("dog runs", "runs the runs dog"):
        rules = pf.Constraints(no_repeat_ngram=0, no_repeated_word=False, max_tokens=4)
        stopping = pf.Stopping(steps=20, patience=20, value=best[1] + 1e-4)
        found = pf.Search(
            puzzle.objective, pf.Polish(init=init), pf.BeamSearch(4), stopping=stopping, constraints=rules
        ).run()
        assert (found.text, found.value) == (best[0], pytest.approx(best[1], abs=1e-4))


def test_a_chain_goes_on_from_what_its_first_method_found(puzzle):
    append = pf.RandomAppend(3)
    begun = pf.Search(puzzle.objective, append, pf.Greedy(), steps=4, constraints=FREE, seed=2).run()
    method = pf.Chain(append, pf.Polish(moves=("replace",)), steps=(4, 12))
    search = pf.Search(puzzle.objective, method, pf.Greedy(), patience=12, constraints=FREE, seed=2)
    result = search.run()
    stages = [step.stage for step in result.history]
    assert stages == sorted(stages)
    assert set(stages) == {1, 2}
    assert result.history[stages.index(2) - 1].best.text == begun.text
    assert result.value < begun.value
    assert len(result.text.split()) == len(begun.text.split())


def test_a_wide_search_escapes_a_trap_that_a_narrow_one_falls_into(make_puzzle):
    """The better text begins with a word that is less likely than that of the other chain."""
    trap = make_puzzle(trapped=True)
    text, value = trap.best(4, ".")
    found = {
        type(strategy): pf.Search(
            trap.objective, pf.AutoDAN(8, transport="none"), strategy, steps=40, patience=40, constraints=FREE
        ).run()
        for strategy in (pf.Greedy(), pf.BeamSearch(8), pf.UniformCost())
    }
    assert found[pf.Greedy].value > value + 0.1
    assert found[pf.BeamSearch].text == found[pf.UniformCost].text == text

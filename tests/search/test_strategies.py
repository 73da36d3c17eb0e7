"""Which texts a search goes on from, and when it ends."""

import itertools
import time
from pathlib import Path

import pytest

import promptfuse as pf
from tests.search.conftest import FREE

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def item(text: str, value: float, parent: str = "") -> pf.Hypothesis:
    return pf.Hypothesis(text, (1,), None, value, {"a": value}, parent=parent)


def selector_of(strategy, met=lambda text: 0, keep=lambda text: True):
    return strategy.selector(met, keep)


def texts(items) -> list[str]:
    return [one.text for one in items]


def test_beam_search_takes_the_best_of_parents_and_children():
    selector = selector_of(pf.BeamSearch(2))
    assert texts(selector.select([item("p", 2.0)], [item("a", 3.0), item("b", 1.0)])) == ["b", "p"]
    assert texts(selector.select([], [item("a", 3.0), item("b", 1.0), item("b", 1.0)])) == ["b", "a"]
    assert texts(selector_of(pf.Greedy()).select([], [item("a", 3.0), item("b", 1.0)])) == ["b"]


def test_diverse_beams_come_from_several_parents():
    children = [item("a", 1.0, "p"), item("b", 1.1, "p"), item("c", 1.2, "p"), item("d", 1.5, "q")]
    assert texts(selector_of(pf.BeamSearch(2)).select([], children)) == ["a", "b"]
    assert texts(selector_of(pf.BeamSearch(2, diverse=0.5)).select([], children)) == ["a", "d"]
    assert texts(selector_of(pf.BeamSearch(2, diverse=0.3)).select([], children)) == ["a", "b"]


def test_texts_that_are_far_worse_than_the_best_complete_one_are_left():
    children = [item("a", 1.0), item("b", 1.2), item("c", 1.5)]
    selector = selector_of(pf.BeamSearch(3, margin=0.25))
    assert texts(selector.select([], children)) == ["a", "b", "c"]
    assert texts(selector.select([], children, best=1.0)) == ["a", "b"]
    assert texts(selector.select([], children, best=0.5)) == []
    assert texts(selector_of(pf.BeamSearch(3)).select([], children, best=0.5)) == ["a", "b", "c"]
    for margin in (-0.1, float("nan"), float("inf")):
        with pytest.raises(pf.ConfigError, match=r"margin: .* give 0 or more"):
            pf.BeamSearch(3, margin=margin)


def test_a_margin_ends_a_search_early_with_the_same_text_where_the_rest_is_hopeless(puzzle):
    plain = pf.Search(puzzle.objective, pf.AutoDAN(4), pf.BeamSearch(4), steps=8, constraints=FREE)
    pruned = pf.Search(
        puzzle.objective, pf.AutoDAN(4), pf.BeamSearch(4, margin=0.0), steps=8, constraints=FREE
    )
    wide = pf.Search(puzzle.objective, pf.AutoDAN(4), pf.BeamSearch(4, margin=1e6), steps=8, constraints=FREE)
    first, second, third = plain.run(), pruned.run(), wide.run()
    assert second.exact_evaluations < first.exact_evaluations
    assert (third.text, third.exact_evaluations) == (first.text, first.exact_evaluations)
    for step in pruned.history:
        assert not step.best.complete or all(beam.value <= step.best.value for beam in step.beams)


@pytest.mark.slow
def test_patience_waits_for_growing_texts_that_are_better_already():
    """Else a short sentence that ends early is returned, though far better ones are on their way."""
    captioner, waited = pf.Captioner("mini"), 0
    for name in ("golden_retriever", "horses", "bison"):
        (photo,) = EXAMPLES.glob(f"photos*/{name}.jpg")
        search = captioner.search(photo, beams=6, effort="fast")
        quiet, best = 0, None
        for step in search:
            found = search.finished.best()
            better = found is not None and any(beam.value < found.value for beam in step.beams)
            expected = 0 if found is None or found != best else quiet + (not better)
            assert search.quiet_steps == expected
            waited += found is not None and found == best and better
            quiet, best = search.quiet_steps, found
        assert search.best.complete
    assert waited


def test_uniform_cost_goes_back_to_what_waits():
    selector = selector_of(pf.UniformCost())
    assert texts(selector.select([], [item("a", 1.0), item("b", 2.0)])) == ["a"]
    assert selector.waiting
    assert texts(selector.select([item("a", 1.0)], [item("aa", 3.0)])) == ["b"]
    assert texts(selector.select([item("b", 2.0)], [item("a", 1.0)])) == ["aa"]
    assert not selector.waiting
    assert texts(selector.select([item("aa", 3.0)], [])) == []


def test_the_frontier_of_uniform_cost_is_bounded():
    selector = selector_of(pf.UniformCost(width=1, frontier=2))
    selector.select([], [item(str(cost), float(cost)) for cost in range(10)])
    assert [one.value for one in selector.queue] == [1.0, 2.0]


@pytest.mark.parametrize("strategy", [pf.BeamSearch(3), pf.UniformCost(width=3)], ids=repr)
def test_texts_that_a_model_does_not_read_back_make_room_for_others(strategy):
    asked = []
    selector = selector_of(strategy, keep=lambda text: asked.append(text) or text not in "bc")
    assert texts(selector.select([], [item(text, ord(text)) for text in "abcdefgh"])) == ["a", "d", "e"]
    assert asked == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("strategy", [pf.BeamSearch(3), pf.UniformCost(width=3)], ids=repr)
def test_texts_with_more_of_the_required_words_have_places_of_their_own(strategy):
    selector = selector_of(strategy, met=len)
    children = [item("a", 1.0), item("b", 2.0), item("cc", 9.0), item("ddd", 10.0), item("dde", 11.0)]
    assert texts(selector.select([], children)) == ["ddd", "cc", "a"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pf.BeamSearch(0), "beams: must be at least 1, got 0"),
        (lambda: pf.BeamSearch(2, diverse=-1), "diverse"),
        (lambda: pf.UniformCost(0), "width: must be at least 1"),
        (lambda: pf.UniformCost(4, frontier=3), "less than the width"),
        (lambda: pf.Stopping(patience=0), "patience: must be at least 1, got 0"),
        (lambda: pf.Stopping(seconds=0), "seconds"),
        (lambda: pf.Stopping(evaluations=0), "evaluations: must be at least 1, got 0"),
        (lambda: pf.Stopping(value=float("nan")), "is not a finite number"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(pf.ConfigError, match=message):
        make()


METHODS = [
    pf.AutoDAN(6, transport="none"),
    pf.GCG(init="runs the runs dog", top_k=6, batch=10),
    pf.PEZ(length=4),
    pf.RandomSearch(length=4, candidates=10),
    pf.Polish(init="runs the dog", candidates=10),
]


def search_of(puzzle, method, **settings) -> pf.Search:
    return pf.Search(puzzle.objective, method, pf.BeamSearch(2), constraints=FREE, **settings)


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("most", [1, 17])
def test_no_more_texts_are_scored_than_allowed(puzzle, method, most, monkeypatch):
    search = search_of(puzzle, method, stopping=pf.Stopping(40, 40, evaluations=most))
    counted = []
    score = search.objective.score
    monkeypatch.setattr(
        search.objective,
        "score",
        lambda found, **options: counted.append(len(found)) or score(found, **options),
    )
    result = search.run()
    assert sum(counted) == result.exact_evaluations <= most
    if not isinstance(method, pf.PEZ):
        assert result.exact_evaluations == most


def test_the_search_ends_at_the_value_asked_for(puzzle):
    method = pf.RandomSearch(length=4, radius=4, candidates=10)
    patient = search_of(puzzle, method, steps=40, patience=40)
    values = [step.best.value for step in patient]
    target = sorted(set(values))[len(set(values)) // 2]
    result = search_of(puzzle, method, stopping=pf.Stopping(40, 40, value=target)).run()
    assert result.value <= target + 1e-6
    assert len(result.history) == next(index for index, value in enumerate(values, 1) if value <= target)


def test_the_search_ends_when_the_time_is_up(puzzle, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    search = search_of(
        puzzle, pf.RandomSearch(length=4, candidates=4), stopping=pf.Stopping(60, 60, seconds=30.0)
    )
    search.run()
    assert search.seconds >= 30
    assert search.history[-2].seconds < 30
    assert len(search.history) < 60


def test_patience_counts_steps_without_a_better_text(puzzle):
    search = search_of(puzzle, pf.RandomSearch(length=4, candidates=4), steps=200, patience=5)
    values = [step.best.value for step in search]
    assert len(values) < 200
    assert len(set(values[-6:])) == 1
    assert values[-7] > values[-6] or len(values) == 6


def test_steps_and_stopping_are_not_mixed(puzzle):
    with pytest.raises(pf.ConfigError, match="steps is given twice"):
        search_of(puzzle, pf.AutoDAN(4), steps=3, stopping=pf.Stopping(4))


def test_negative_seeds_are_refused(puzzle):
    with pytest.raises(pf.ConfigError, match="seed: must be at least 0, got -1"):
        search_of(puzzle, METHODS[0], seed=-1)


def test_a_chain_has_steps_for_each_method(puzzle):
    chain = pf.Chain(pf.Chain(pf.RandomAppend(3), pf.GCG(top_k=4, batch=4)), pf.Polish(), steps=[2, 3, 1])
    search = search_of(puzzle, chain, patience=9)
    search.run()
    assert [step.stage for step in search.history] == [1, 1, 2, 2, 2, 3]
    assert search.steps == 6
    described = chain.describe()
    assert [part["name"] for part in described["methods"]] == ["RandomAppend", "GCG", "Polish"]


def test_callbacks_may_stop_a_search_and_it_goes_on(puzzle):
    class EnoughError(Exception):
        pass

    def stop(search: pf.Search, step: pf.Step) -> None:
        if step.number == 2:
            raise EnoughError

    whole = search_of(puzzle, METHODS[1], steps=5)
    whole.run()
    search = search_of(puzzle, METHODS[1], steps=5, callbacks=[stop])
    with pytest.raises(EnoughError):
        search.run()
    search.callbacks.clear()
    search.run()
    assert [step.beams for step in search.history] == [step.beams for step in whole.history]

"""Several objectives: weights, scalarisations and the Pareto front."""

import math

import pytest
import torch

import promptfuse as pf
from promptfuse.search.pareto import Archive, pareto_front
from promptfuse.search.scalarizer import AUGMENTATION, Scalarizer
from tests.search.conftest import FREE

METHOD = pf.RandomSearch(length=4, radius=4, candidates=40)


def search_of(objective: pf.Objective, **settings) -> pf.Search:
    return pf.Search(
        objective, METHOD, pf.Greedy(), **{"steps": 6, "patience": 6, "constraints": FREE} | settings
    )


def test_archive_is_the_front_of_all_that_was_added():
    generator = torch.Generator().manual_seed(0)
    points = torch.randint(0, 7, (300, 3), generator=generator).tolist()
    weights = {"a": 1.0, "b": 2.0, "c": -1.0}
    items = [
        pf.Hypothesis(
            str(index), (index,), 0.0, a + 2.0 * b - c, {"a": float(a), "b": float(b), "c": float(c)}
        )
        for index, (a, b, c) in enumerate(points)
    ]
    archive = Archive(weights)
    for item in items:
        archive.add(item)
    front = pareto_front(items, weights)
    key = lambda item: tuple(item.terms.values())  # noqa: E731
    assert sorted(map(key, archive.values())) == sorted(map(key, front))
    assert archive.best().value == min(item.value for item in items)


def test_front_of_a_search_is_that_of_all_texts_that_it_scored(puzzle, monkeypatch):
    search = search_of(puzzle.objective)
    seen = {}
    score = search.objective.score

    def watched(texts, **options):
        losses = score(texts, **options)
        for index, text in enumerate(texts):
            seen[text] = {name: float(found[index]) for name, found in losses.items()}
        return losses

    monkeypatch.setattr(search.objective, "score", watched)
    result = search.run()
    assert len(seen) > 100
    items = [
        pf.Hypothesis(text, (), None, search.objective.total(terms), terms) for text, terms in seen.items()
    ]
    expected = pareto_front(items, result.weights)
    assert len(expected) > 1
    assert {item.text for item in result.pareto_front} == {item.text for item in expected}
    assert result.pareto_front[0].text == result.text


def test_automatic_weights_are_the_spreads_of_the_first_candidates(puzzle):
    search = search_of(puzzle.objective, weights="auto", steps=2)
    proposals = search.proposer.propose(search.beams).texts
    texts = [search.beams[0].text, *(item.text for item in proposals)]
    losses = puzzle.objective.score(texts)
    expected = {name: 1 / float(found.double().std(correction=0)) for name, found in losses.items()}
    result = search_of(puzzle.objective, weights="auto", steps=2).run()
    assert result.weights == pytest.approx(expected, rel=1e-4)
    total = sum(expected[name] * result.terms[name] for name in expected)
    assert result.value == pytest.approx(total, rel=1e-4)
    # The user's objective is as it was.
    assert puzzle.objective.weights == {"fluency": 1.0, "class": 1.0}


def test_automatic_weights_do_not_depend_on_the_scale_of_the_given_ones(puzzle):
    terms = puzzle.objective.terms
    lm, classifier = terms["fluency"].model, terms["class"].model
    scaled = pf.Objective(pf.Fluency(lm, 300.0), pf.ClassProbability(classifier, "good", 0.01))
    first, second = (search_of(each, weights="auto").run() for each in (puzzle.objective, scaled))
    assert first.text == second.text
    assert first.weights == pytest.approx(second.weights)
    assert first.value == pytest.approx(second.value)


def test_importances_multiply_and_signs_stay(puzzle):
    terms = puzzle.objective.terms
    lm, classifier = terms["fluency"].model, terms["class"].model
    away = pf.Objective(pf.Fluency(lm, 2.0), pf.ClassProbability(classifier, "good", -5.0))
    plain = search_of(away, weights="auto", steps=1).run().weights
    twice = search_of(away, weights={"class": 2.0}, steps=1).run().weights
    assert plain["class"] < 0 < plain["fluency"]
    assert twice == pytest.approx({"fluency": plain["fluency"], "class": 2 * plain["class"]})


def test_a_term_that_is_constant_keeps_a_finite_weight(puzzle):
    objective = pf.Objective(*puzzle.objective.terms.values(), pf.BlackBox(lambda text: 7.0, name="seven"))
    result = search_of(objective, weights="auto", steps=1).run()
    assert result.weights["seven"] == 1.0
    assert math.isfinite(result.value)


def test_chebyshev_value_by_hand(puzzle):
    weighing = Scalarizer(puzzle.objective, "given", "chebyshev")
    losses = {"fluency": torch.tensor([1.0, 2.0, 4.0]), "class": torch.tensor([3.0, 0.5, 0.25])}
    weighing.fit(losses)
    apart = [(0.0, 2.75), (1.0, 0.25), (3.0, 0.0)]
    expected = [max(pair) + AUGMENTATION * sum(pair) for pair in apart]
    assert weighing.values(losses).tolist() == pytest.approx(expected)
    assert weighing.value({"fluency": 2.0, "class": 0.5}) == pytest.approx(expected[1])


def test_chebyshev_finds_a_compromise_that_no_weighted_sum_finds(puzzle):
    """Two losses on a hollow front: a sum takes an end of it, whatever the weights."""
    ends = {"a": (0.0, 1.0), "red": (1.0, 0.0), "fox": (0.6, 0.6)}

    def loss(which: int):
        return lambda text: ends.get(text.split()[-1], (2.0, 2.0))[which]

    lm = puzzle.objective.terms["fluency"].model
    objective = pf.Objective(
        pf.Fluency(lm, 1e-3), pf.BlackBox(loss(0), name="left"), pf.BlackBox(loss(1), name="right")
    )
    found = {}
    for scalarisation in ("weighted", "chebyshev"):
        search = pf.Search(
            objective, pf.Polish(init="dog", moves=("replace",)), pf.Greedy(), steps=4, constraints=FREE,
            scalarisation=scalarisation,
        )  # fmt: skip
        result = search.run()
        found[scalarisation] = result.text
        assert {item.text for item in result.pareto_front} >= {"a", "red", "fox"}
        assert result.value == pytest.approx(min(item.value for item in result.pareto_front), abs=1e-4)
    assert found["weighted"] in ("a", "red")
    assert found["chebyshev"] == "fox"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "best"}, "choose given or auto"),
        ({"weights": {"image": 1.0}}, "no term is called 'image'; choose from: fluency, class"),
        ({"weights": {"class": -1.0}}, "must be above 0"),
        ({"scalarisation": "minimum"}, "choose weighted or chebyshev"),
    ],
)
def test_settings_that_are_not_known_are_refused(puzzle, settings, message):
    with pytest.raises(pf.ConfigError, match=message):
        search_of(puzzle.objective, **settings)


LEFT = {"dog": 0.9, "fox": 0.5, "a": 0.1, "the": 0.3}
RIGHT = {"dog": 0.9, "fox": 0.5, "a": 0.8, "the": 0.3}


def test_the_ideal_point_follows_what_was_seen(puzzle):
    """Losses far below those of the first candidates go on counting, so the knee of the front is found."""

    def loss(table: dict[str, float]):
        # Each further word that is liked lowers the loss: the first candidates have seen little of it.
        return lambda text: sum(table.get(word, 1.0) for word in text.split()) / 4

    lm = puzzle.objective.terms["fluency"].model
    objective = pf.Objective(
        pf.Fluency(lm, 1e-3), pf.BlackBox(loss(LEFT), name="left"), pf.BlackBox(loss(RIGHT), name="right")
    )
    method = pf.Polish(init="dog dog dog dog", moves=("replace",))
    search = pf.Search(
        objective, method, pf.Greedy(), steps=8, patience=8, constraints=FREE, scalarisation="chebyshev"
    )
    result = search.run()
    # By hand: four times "the" has 0.3 in both, next to the ideal of 0.1 and 0.3; "a" would have 0.8 right.
    assert result.text == "the the the the"
    front = {name: min(item.terms[name] for item in result.pareto_front) for name in ("left", "right")}
    assert result.ideal["left"] <= front["left"] + 1e-6
    assert result.ideal["right"] == pytest.approx(0.3)
    # Nothing is below the ideal point, and what is held has been valued by it.
    for item in search.finished.values():
        apart = [
            term.weight * (item.terms[name] - result.ideal[name]) for name, term in objective.terms.items()
        ]
        assert min(apart) >= -1e-6
        assert item.value == pytest.approx(max(apart) + AUGMENTATION * sum(apart), abs=1e-5)
    assert result.value == pytest.approx(min(item.value for item in search.finished.values()), abs=1e-4)


def test_the_ideal_point_moves_to_better_losses_only(puzzle):
    away = pf.Objective(
        puzzle.objective.terms["fluency"],
        pf.ClassProbability(puzzle.objective.terms["class"].model, "good", -2.0),
    )
    weighing = Scalarizer(away, "given", "chebyshev")
    assert weighing.value({"fluency": 3.0, "class": 1.0}) == 0.0  # All that there is.
    seen = [([3.0, 4.0], [1.0, 2.0], True), ([3.5], [1.5], False), ([2.0], [0.5], True), ([9.0], [7.0], True)]
    for fluency, label, moved in seen:
        losses = {"fluency": torch.tensor(fluency), "class": torch.tensor(label)}
        assert weighing.see(losses) is moved
    assert weighing.ideal == {"fluency": 2.0, "class": 7.0}
    assert weighing.value({"fluency": 3.0, "class": 6.0}) == pytest.approx(2.0 + AUGMENTATION * 3.0)

import promptfuse as pf
from promptfuse.testing import CHAINS, known_answer


def test_the_problem_is_solved_by_a_search_and_by_trying_all(tmp_path):
    problem = known_answer(tmp_path)
    text, value = problem.best(4, ".")
    assert text == " ".join(CHAINS[0][1:])
    result = pf.optimize(
        problem.objective,
        pf.AutoDAN(8),
        pf.BeamSearch(3),
        steps=12,
        patience=12,
        constraints=problem.constraints,
    )
    assert result.text == text
    assert abs(result.value - value) < 1e-4


def test_the_trap_misleads_a_greedy_search_and_no_wide_one(tmp_path):
    problem = known_answer(tmp_path, trap=True)
    text, _ = problem.best(4, ".")
    found = {
        name: pf.optimize(
            problem.objective, pf.AutoDAN(8, transport="none"), strategy, steps=12, patience=12,
            constraints=problem.constraints,
        ).text
        for name, strategy in (("greedy", pf.Greedy()), ("wide", pf.BeamSearch(6)))
    }  # fmt: skip
    assert found["wide"] == text
    assert found["greedy"] != text

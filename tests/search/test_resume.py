"""A search that was stopped, or killed, ends as if it had not been."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import promptfuse as pf
from tests.search.killing import METHODS, STRATEGIES, make_search, summary

KILLING = Path(__file__).parent / "killing.py"


@pytest.mark.parametrize(("method", "strategy"), list(product(METHODS, STRATEGIES)))
def test_resumed_at_any_step_every_search_ends_the_same(puzzle, method, strategy):
    search = make_search(puzzle.objective, method, strategy)
    saved = [json.dumps(search.state_dict())]
    saved += [json.dumps(search.state_dict()) for _ in search]
    expected = summary(search)
    assert len(saved) > 4
    for stop in (0, len(saved) // 2, len(saved) - 2):
        resumed = make_search(puzzle.objective, method, strategy)
        resumed.load_state_dict(json.loads(saved[stop]))
        assert len(resumed.history) == stop
        resumed.run()
        assert summary(resumed) == expected


@pytest.mark.parametrize(("method", "strategy"), [("chain", "beam"), ("pez", "greedy")])
def test_killed_searches_end_the_same(lookup_models, tmp_path, method, strategy):
    lm, _, classifier = lookup_models
    done = subprocess.run(
        [sys.executable, KILLING, lm, classifier, tmp_path, method, strategy, "3", "0"],
        capture_output=True, text=True, timeout=300, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert len(report["killed_behind_steps"]) >= 3
    assert report["found"]
    for found in report["found"]:
        assert_alike(found, report["expected"])


def assert_alike(found: Any, expected: Any) -> None:
    """Equal, numbers up to float32's rounding: what is remembered of earlier texts is lost with a kill."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_alike(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    else:
        assert found == (pytest.approx(expected, rel=1e-5) if isinstance(expected, float) else expected)


def test_run_folder_has_a_line_for_each_step(puzzle, tmp_path):
    seen = []

    def check(search: pf.Search, step: pf.Step) -> None:
        lines = (tmp_path / "history.jsonl").read_text().splitlines()
        seen.append((len(lines), json.loads(lines[-1])["number"], step.number))

    search = make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path, callbacks=[check])
    result = search.run()
    assert seen == [(number, number, number) for number in range(1, len(result.history) + 1)]
    assert not list(tmp_path.glob("*.part"))
    again = make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path)
    assert again.done
    assert again.run().to_dict() == result.to_dict()


def test_a_line_that_is_ahead_of_the_state_is_cut_off(puzzle, tmp_path):
    whole = make_search(puzzle.objective, "random-search", "beam")
    whole.run()
    broken = make_search(puzzle.objective, "random-search", "beam", run_dir=tmp_path)
    for _ in range(3):
        broken.step()
    with (tmp_path / "history.jsonl").open("a") as stream:
        stream.write('{"number": 4, "half a li')
    (tmp_path / "state.part").write_text("{")
    resumed = make_search(puzzle.objective, "random-search", "beam", run_dir=tmp_path)
    assert len(resumed.history) == 3
    resumed.run()
    assert summary(resumed) == summary(whole)
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(1, len(lines) + 1))


def test_run_folders_of_other_searches_and_damaged_ones_are_refused(puzzle, tmp_path):
    make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path).step()
    with pytest.raises(pf.ConfigError, match="the saved search has another config"):
        make_search(puzzle.objective, "gcg", "greedy", run_dir=tmp_path)
    state = (tmp_path / "state.json").read_text()
    for damaged in (state[:-20], "[]", "{}", state.replace('"history_length": 1', '"history_length": 2')):
        (tmp_path / "state.json").write_text(damaged)
        with pytest.raises(pf.ConfigError, match="its files are damaged; delete it"):
            make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(pf.ConfigError, match="give a folder that can be written to"):
        make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path / "file")


def test_soft_prompts_are_saved_bit_for_bit():
    import torch

    from promptfuse.search.state import tensor_from_json, tensor_to_json

    tensor = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)) * 1e-30
    again = tensor_from_json(json.loads(json.dumps(tensor_to_json(tensor))))
    assert torch.equal(tensor, again)
    assert again.dtype == torch.float32

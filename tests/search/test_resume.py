"""A search that was stopped, or killed, ends as if it had not been."""

import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

import promptfuse as pf
from tests.search.killing import FREE, METHODS, STRATEGIES, make_search, summary

KILLING = Path(__file__).parent / "killing.py"


@pytest.mark.slow
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


@pytest.mark.slow
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
    with pytest.raises(pf.ConfigError, match=r"strategy\.name 'BeamSearch', not 'Greedy'"):
        make_search(puzzle.objective, "gcg", "greedy", run_dir=tmp_path)
    state = (tmp_path / "state.json").read_text()
    for damaged in (state[:-20], "[]", "{}", state.replace('"history_length": 1', '"history_length": 2')):
        (tmp_path / "state.json").write_text(damaged)
        with pytest.raises(pf.ConfigError, match="its files are damaged"):
            make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(pf.ConfigError, match="give a folder that can be written to"):
        make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path / "file")


FOREIGN = {
    "a history": {"history.jsonl": '{"epoch": 1, "loss": 2.5}\n'},
    "notes": {"history.jsonl": "Monday: trained for six hours\n"},
    "a history with numbers": {"history.jsonl": '{"number": 1, "loss": 2.5}\n', "state.json": "{}"},
    "a state": {"state.json": '{"optimizer": [1, 2]}'},
    "another program's state": {"state.json": '{"history_length": 0, "config": {}, "objective": {}}'},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_nothing_of_somebody_elses_is_removed(puzzle, tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(pf.ConfigError, match=str(tmp_path)):
        make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path).step()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_other_files_of_a_run_folder_are_left_alone(puzzle, tmp_path):
    others = {"state.part": "mine", "history.part": "mine", "notes.txt": "mine", "history.jsonl": ""}
    for name, text in others.items():
        (tmp_path / name).write_text(text)
    for steps in (2, 4):
        search = make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path)
        while len(search.history) < steps:
            search.step()
    del others["history.jsonl"]
    assert {name: (tmp_path / name).read_text() for name in others} == others
    assert {path.name for path in tmp_path.iterdir()} == {*others, "history.jsonl", "state.json"}


@pytest.mark.parametrize(
    "added", ['{"number": 9, "x": 1}\n', "notes", '{"number": 3, "a\n{"number": 4, "b\n']
)
def test_lines_that_are_not_the_next_step_are_not_cut_off(puzzle, tmp_path, added):
    search = make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path)
    search.step(), search.step()
    history = tmp_path / "history.jsonl"
    history.write_text(history.read_text() + added)
    before = history.read_text()
    with pytest.raises(pf.ConfigError, match="damaged or not from a search"):
        make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path)
    assert history.read_text() == before


def test_a_search_that_is_killed_before_its_first_step_ends_can_be_begun_again(puzzle, tmp_path):
    begun = make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path)
    begun.run_folder.begin(begun.state_dict())  # Killed then, and killed behind the first line.
    for line in ("", '{"number": 1, "bea'):
        (tmp_path / "history.jsonl").write_text(line)
        search = make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path)
        assert search.history == []
    whole = make_search(puzzle.objective, "gcg", "beam")
    whole.run(), search.run()
    assert summary(search) == summary(whole)


# ------------------------------------------------------------------------------------------- other models


def merged(folder: Path, to: Path, part: str) -> Path:
    """A checkpoint with other weights and the same embeddings and tokenizer, as a merged LoRA has."""
    shutil.copytree(folder, to)
    weights = safetensors.torch.load_file(to / "model.safetensors")
    name = next(name for name in sorted(weights) if part in name)
    weights[name].mul_(1.25).add_(0.01)
    safetensors.torch.save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.mark.parametrize("part", ["lm_head", "attn.c_proj.weight", "ln_f"])
def test_a_model_with_the_same_embeddings_is_another(lookup_models, tmp_path, part):
    lm, _, classifier = lookup_models
    tone = pf.ClassProbability(pf.load_model(classifier), "good", 1.0)

    def search(model: Path) -> pf.Search:
        objective = pf.Objective(pf.Fluency(pf.load_model(model)), tone)
        return make_search(objective, "gcg", "beam", run_dir=tmp_path / "run")

    search(lm).step()
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    other = merged(lm, tmp_path / "merged", part)
    with pytest.raises(pf.ConfigError, match="another model in the term fluency"):
        search(other)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    search(lm).step()


def test_a_model_that_was_changed_in_memory_is_another(lookup_models, tmp_path):
    lm, _, classifier = lookup_models
    models = pf.load_model(lm), pf.load_model(classifier)
    objective = pf.Objective(pf.Fluency(models[0]), pf.ClassProbability(models[1], "good", 1.0))
    make_search(objective, "gcg", "beam", run_dir=tmp_path).step()
    models[0].module.lm_head.weight.data.mul_(1.5)
    models[0].clear_cache()
    with pytest.raises(pf.ConfigError, match="another model in the term fluency"):
        make_search(objective, "gcg", "beam", run_dir=tmp_path)


def test_a_search_of_an_earlier_version_is_refused_in_one_line(puzzle, tmp_path):
    make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path).step()
    state = json.loads((tmp_path / "state.json").read_text())
    del state["format"]
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(pf.ConfigError, match="of an earlier version, which did not record all weights"):
        make_search(puzzle.objective, "gcg", "beam", run_dir=tmp_path)


# ------------------------------------------------------------------------------------------- other limits


def limited(puzzle, method="gcg", **limits: Any) -> pf.Search:
    run_dir = limits.pop("run_dir", None)
    return pf.Search(
        puzzle.objective, METHODS[method]() if isinstance(method, str) else method, pf.BeamSearch(3),
        stopping=pf.Stopping(**({"steps": 4, "patience": 12} | limits)), constraints=FREE, seed=3,
        run_dir=run_dir,
    )  # fmt: skip


@pytest.mark.parametrize("method", ["autodan", "gcg", "pez", "random-search", "polish"])
@pytest.mark.parametrize("done", [2, 4])
def test_more_steps_are_as_if_they_had_been_asked_for_at_once(puzzle, tmp_path, method, done):
    whole = limited(puzzle, method, steps=7)
    whole.run()
    search = limited(puzzle, method, run_dir=tmp_path)
    for _ in range(done):
        search.step()
    longer = limited(puzzle, method, steps=7, run_dir=tmp_path)
    longer.run()
    assert summary(longer) == summary(whole)
    assert longer.result().config["stopping"]["steps"] == 7
    with pytest.raises(pf.ConfigError, match=r"stopping\.steps 7, which cannot become 3: 7 steps are taken"):
        limited(puzzle, method, steps=3, run_dir=tmp_path)


def test_a_chain_may_get_more_steps_for_methods_that_have_not_ended(puzzle, tmp_path):
    parts = pf.RandomAppend(4), pf.Polish(candidates=12)
    whole = limited(puzzle, pf.Chain(*parts, steps=(3, 5)))
    whole.run()
    limited(puzzle, pf.Chain(*parts, steps=(3, 2)), run_dir=tmp_path).run()
    longer = limited(puzzle, pf.Chain(*parts, steps=(3, 5)), run_dir=tmp_path)
    longer.run()
    assert summary(longer) == summary(whole)
    with pytest.raises(
        pf.ConfigError, match=r"method\.steps .* methods of the chain have already ended by it"
    ):
        limited(puzzle, pf.Chain(*parts, steps=(4, 5)), run_dir=tmp_path)


@pytest.mark.parametrize(
    ("before", "now", "problem"),
    [
        ({"patience": 2}, {"patience": 9}, ""),
        ({"patience": 9}, {"patience": 2}, "patience 9, which cannot become 2: it might have ended before"),
        ({"evaluations": 10}, {"evaluations": 30}, "the proposals of its last step were cut"),
        ({}, {"evaluations": 1000}, ""),
        ({}, {"evaluations": 1}, "are made already"),
        ({"seconds": 9.0}, {"seconds": 90.0}, ""),
        ({"value": -100.0}, {"value": 100.0}, "it would have ended before"),
        ({"value": -100.0}, {}, ""),
    ],
)
def test_limits_that_would_have_changed_what_was_done_are_refused(puzzle, tmp_path, before, now, problem):
    limited(puzzle, run_dir=tmp_path, **before).run()
    if problem:
        with pytest.raises(pf.ConfigError, match=problem):
            limited(puzzle, run_dir=tmp_path, **now)
        return
    resumed = limited(puzzle, run_dir=tmp_path, **(now | {"steps": 6}))
    resumed.run()
    whole = limited(puzzle, **(now | {"steps": 6}))
    whole.run()
    assert summary(resumed) == summary(whole)


def test_soft_prompts_are_saved_bit_for_bit():
    import torch

    from promptfuse.search.state import tensor_from_json, tensor_to_json

    tensor = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)) * 1e-30
    again = tensor_from_json(json.loads(json.dumps(tensor_to_json(tensor))))
    assert torch.equal(tensor, again)
    assert again.dtype == torch.float32

"""Kills searches at random moments and lets them go on; run by test_resume.py, or by hand with 20 kills.

    python tests/search/killing.py LM CLASSIFIER FOLDER METHOD STRATEGY KILLS SEED

Prints a JSON object: how the undisturbed search ended, and how each of the killed ones did. The searches run
in children, which are forked when everything is loaded, so that a kill falls into the search itself.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

import promptfuse as pf

FREE = pf.Constraints(no_repeat_ngram=0, no_repeated_word=False)
METHODS: dict[str, Callable[[], Any]] = {
    "autodan": lambda: pf.AutoDAN(6),
    "autodan-ridge": lambda: pf.AutoDAN(6, ridge=1.0),
    "random-append": lambda: pf.RandomAppend(4),
    "gcg": lambda: pf.GCG(init="runs the runs dog", top_k=6, batch=8),
    "gcg-options": lambda: pf.GCG(
        "runs the runs dog", 6, 8, swaps=3, last_swaps=1, swap_steps=4, buffer=3, momentum=0.6
    ),
    "pez": lambda: pf.PEZ(length=4, weight_decay=1.0, updates=4),
    "random-search": lambda: pf.RandomSearch(length=4, candidates=6),
    "random-search-l2": lambda: pf.RandomSearch(ball="l2", radius=1.5, length=4, candidates=6),
    "polish": lambda: pf.Polish(init="runs the runs dog", candidates=12),
    "chain": lambda: pf.Chain(pf.RandomAppend(4), pf.GCG(top_k=6, batch=8), pf.Polish(candidates=12)),
}
STRATEGIES: dict[str, Callable[[], Any]] = {
    "greedy": pf.Greedy,
    "beam": lambda: pf.BeamSearch(3, diverse=0.05),
    "uniform-cost": pf.UniformCost,
}


def make_search(objective: pf.Objective, method: str, strategy: str, **settings: Any) -> pf.Search:
    """A search of a dozen steps; automatic weights, since those are part of the state too."""
    return pf.Search(
        objective, METHODS[method](), STRATEGIES[strategy](), steps=12, patience=12, constraints=FREE,
        weights="auto", seed=3, **settings,
    )  # fmt: skip


def summary(search: pf.Search) -> dict[str, Any]:
    """What has to be the same."""
    result = search.result()
    return {
        "text": result.text,
        "value": result.value,
        "terms": result.terms,
        "weights": result.weights,
        "exact_evaluations": result.exact_evaluations,
        "history": [[[beam.text, beam.value] for beam in step.beams] for step in result.history],
        "front": [[item.text, item.value] for item in result.pareto_front],
    }


def start(search_in: Callable[[Path], pf.Search], folder: Path) -> int:
    """A child that searches in a folder and puts its summary there; its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        search = search_in(folder / "run")
        search.run()
        (folder / "summary.part").write_text(json.dumps(summary(search)))
        (folder / "summary.part").replace(folder / "summary.json")
        code = 0
    finally:
        os._exit(code)


def main() -> None:
    """See the module."""
    lm, classifier, root, method, strategy, kills, seed = sys.argv[1:]
    torch.set_num_threads(1)
    objective = pf.Objective(
        pf.Fluency(pf.load_model(lm)), pf.ClassProbability(pf.load_model(classifier), "good", 1.0)
    )

    def search_in(folder: Path) -> pf.Search:
        return make_search(objective, method, strategy, run_dir=folder)

    draw = random.Random(int(seed))
    whole = Path(root) / "whole"
    whole.mkdir()
    began = time.monotonic()
    _, status = os.waitpid(start(search_in, whole), 0)
    assert status == 0
    duration = time.monotonic() - began
    found: list[dict[str, Any]] = []
    moments: list[int] = []
    while len(moments) < int(kills):
        folder = Path(root) / f"killed-{len(found)}"
        folder.mkdir()
        while not (folder / "summary.json").exists():
            child = start(search_in, folder)
            if len(moments) < int(kills):
                time.sleep(draw.uniform(0, duration * 0.6))
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                history = folder / "run" / "history.jsonl"
                moments.append(history.read_bytes().count(b"\n") if history.exists() else 0)
            else:
                assert status == 0
        found.append(json.loads((folder / "summary.json").read_text()))
    expected = json.loads((whole / "summary.json").read_text())
    print(json.dumps({"expected": expected, "found": found, "killed_behind_steps": moments}))


if __name__ == "__main__":
    main()

"""Searches that are written down rather than run."""

from __future__ import annotations

from promptfuse.search import Hypothesis, Result, Step


def text(words: str, value: float, parent: str = "", complete: bool = False) -> Hypothesis:
    terms = {"fluency": value, "image": 1 / value}
    return Hypothesis(words, (1,), None, value, terms, complete, parent)


def result(*beams: list[Hypothesis], best: list[Hypothesis], stages: list[int] | None = None) -> Result:
    """A search with these beams and these best texts by step."""
    steps = [
        Step(index + 1, tuple(kept), found, 8, 8 * index, {"image": 0.1 * index}, 0.5 * index + 0.5, stage)
        for index, (kept, found, stage) in enumerate(zip(beams, best, stages or [1] * len(best), strict=True))
    ]
    methods = [{"name": "AutoDAN"}, {"name": "Polish"}]
    config = {
        "method": {"name": "Chain", "methods": methods},
        "strategy": {"name": "UniformCost", "width": 2},
        "scalarisation": "weighted",
    }
    last = best[-1]
    return Result(
        last.text, last.value, last.terms, {"fluency": 1.0, "image": -2.0}, last.complete, steps,
        [last] if last.complete else [], 8 * len(steps), 0.5 * len(steps), 0, config, {},
    )  # fmt: skip

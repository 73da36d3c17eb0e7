"""Methods that are passed in without being registered, and what methods need of the models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import promptfuse as pf
from promptfuse.search.methods import (
    GRADIENTS,
    PREFIX_CACHE,
    EditProposer,
    Hypothesis,
    Method,
    Proposal,
    Proposed,
    SearchContext,
)
from promptfuse.search.strategies import Strategy, strategies


@dataclass(frozen=True)
class Repeat(Method):
    """Adds a word to the end of a text, twice."""

    word: str = "dog"

    def proposer(self, context: SearchContext) -> RepeatProposer:
        return RepeatProposer(context, self)


class RepeatProposer(EditProposer):
    def __init__(self, context: SearchContext, settings: Repeat) -> None:
        super().__init__(context)
        self.settings = settings

    def initial_texts(self) -> list[str]:
        return ["a dog"]

    def propose(self, beams: Sequence[Hypothesis]) -> Proposed:
        texts = [f"{beam.text} {self.settings.word}" for beam in beams]
        encoded = zip(texts, self.context.encode(texts), strict=True)
        return Proposed([Proposal(text, ids, None, at) for at, (text, ids) in enumerate(encoded) if ids], [])


@dataclass(frozen=True)
class Steep(Repeat):
    requires = (GRADIENTS,)


@pytest.fixture(scope="module")
def fluent(model) -> pf.Objective:
    return pf.Objective(pf.Fluency(model("gpt2")))


FREE = pf.Constraints(no_repeated_word=False, no_repeat_ngram=0)


def test_a_method_need_not_be_registered(fluent, tmp_path):
    result = pf.optimize(
        fluent, Repeat("runs"), pf.Greedy(), constraints=FREE, steps=2, run_dir=tmp_path, complete=False
    )
    assert result.config["method"] == {"name": "Repeat", "word": "runs"}
    assert result.text in ("a dog", "a dog runs", "a dog runs runs")
    with pytest.raises(pf.ConfigError, match="'runs', not 'dog'"):
        pf.optimize(fluent, Repeat(), pf.Greedy(), constraints=FREE, steps=2, run_dir=tmp_path)
    chain = pf.Chain(Repeat("runs"), pf.Polish(candidates=4), steps=(1, 1))
    assert pf.optimize(fluent, chain, pf.Greedy(), constraints=FREE).config["method"]["name"] == "Chain"


def test_what_a_method_needs_is_checked_before_any_work(fluent, model):
    dull = pf.Objective(pf.Fluency(model("gpt2")), pf.BlackBox(len))
    assert pf.Search(dull, Steep(), steps=1).method == Steep()
    lm = fluent.primary
    deaf = pf.Objective(pf.BlackBox(len))
    with pytest.raises(pf.ConfigError, match=r"^Repeat needs a causal language model, but .*add a Fluency"):
        pf.optimize(deaf, Repeat())
    bert = pf.Objective(pf.ClassProbability(model("bert"), "positive"))
    with pytest.raises(pf.ConfigError, match=f"but {bert.terms['class'].model.name} proposes no words"):
        pf.optimize(bert, pf.AutoDAN())
    before = lm.__dict__.get("has_gradient")
    lm.__dict__["has_gradient"] = False
    try:
        for method in (Steep(), pf.GCG(), pf.PEZ(), pf.Chain(pf.Polish(init="a dog"), pf.GCG())):
            with pytest.raises(pf.ConfigError, match=r"needs gradients, but .*gives none; use RandomSearch"):
                pf.Search(fluent, method)
    finally:
        del lm.__dict__["has_gradient"]
        if before is not None:
            lm.__dict__["has_gradient"] = before


def test_a_method_may_need_a_prefix_cache(checkpoint):
    @dataclass(frozen=True)
    class Cached(Repeat):
        requires = (PREFIX_CACHE,)

    slow = pf.load_model(checkpoint("gpt2"), fast=False)
    with pytest.raises(pf.ConfigError, match=r"Cached needs a prefix cache, but .* reads every text whole"):
        pf.optimize(pf.Objective(pf.Fluency(slow)), Cached())


def test_a_method_that_is_no_dataclass_is_named(fluent):
    class Bare(Method):
        def proposer(self, context):
            return RepeatProposer(context, Repeat())

    with pytest.raises(pf.ConfigError, match="Bare is not a dataclass; put @dataclass"):
        pf.optimize(fluent, Bare(), steps=1)


def test_a_strategy_need_not_be_registered(fluent):
    @dataclass(frozen=True)
    class Widest(Strategy):
        width: int = 3

        def selector(self, met, keep):
            return pf.BeamSearch(self.width).selector(met, keep)

    assert "Widest" not in strategies
    result = pf.optimize(fluent, pf.RandomAppend(4), Widest(), steps=2)
    assert result.config["strategy"] == {"name": "Widest", "width": 3}
    assert len(result.history[-1].beams) == 3


def test_the_strategy_of_the_page_selects_new_texts(fluent, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (snippet,) = (block for block in blocks if "strategies.register" in block)
    monkeypatch.setattr(strategies, "_items", dict(strategies._items))
    names = {"__name__": "onward"}
    exec(compile(snippet, "onward", "exec", dont_inherit=True), names)
    assert strategies["Onward"] is names["Onward"]
    search = pf.Search(
        fluent, pf.Polish(init="a dog runs", candidates=8), names["Onward"](3), constraints=FREE
    )
    before = set()
    for _ in range(3):
        beams = search.step().beams
        assert 0 < len(beams) <= 3
        assert not before & {beam.text for beam in beams}
        before = {beam.text for beam in beams}
    assert search.result().config["strategy"] == {"name": "Onward", "width": 3}

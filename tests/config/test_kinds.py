"""Every method, strategy and term can be written in a file, and the documentation names every key."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import get_args

import promptfuse as pf
from promptfuse.config import SearchConfig, load_config
from promptfuse.config.settings import ChainSettings, SingleKinds, StrategyKinds
from promptfuse.config.terms import ModelSettings, TermKinds
from promptfuse.search.methods import methods


def test_every_method_and_strategy_can_be_written(config):
    settings = SingleKinds.by_name()
    assert {*settings, "Chain"} == set(methods)
    for kind in (methods[name] for name in settings):
        found = load_config(config, {"method": {"kind": kind.__name__}})
        assert found.method.build() == kind()
        assert {field.name for field in dataclasses.fields(kind)} < set(settings[kind.__name__].model_fields)
    for strategy in (pf.BeamSearch(), pf.Greedy(), pf.UniformCost()):
        found = load_config(config, {"strategy": type(strategy).__name__})
        assert found.strategy.build() == strategy
    assert set(StrategyKinds.by_name()) == {"BeamSearch", "Greedy", "UniformCost"}
    chain = {"kind": "Chain", "methods": ["AutoDAN", {"kind": "Polish", "candidates": 3}], "steps": [4, 2]}
    expected = pf.Chain(pf.AutoDAN(), pf.Polish(candidates=3), steps=(4, 2))
    assert load_config(config, {"method": chain}).method.build() == expected
    plain = load_config(config, {"constraints": {}, "stopping": {}})
    assert plain.constraints.build() == pf.Constraints()
    assert plain.stopping.build() == pf.Stopping()


def test_every_term_can_be_written_with_its_own_defaults():
    described = TermKinds.members()
    everything = {name for name in pf.__all__ if inspect.isclass(getattr(pf, name))}
    terms = {name for name in everything if issubclass(getattr(pf, name), pf.Term)} - {"Term"}
    assert {settings.signature.term.__name__ for settings in described} == terms
    for settings in described:
        parameters = inspect.signature(settings.signature.term).parameters
        assert set(settings.model_fields) == {*parameters, "kind"} - {"name"}
        for name, parameter in parameters.items():
            if name != "name" and parameter.default is not inspect.Parameter.empty:
                assert settings.model_fields[name].default == parameter.default, (settings, name)


def test_the_documentation_names_every_key():
    text = (Path(__file__).parents[2] / "docs" / "reference" / "yaml.md").read_text(encoding="utf-8")
    models = [SearchConfig, *SingleKinds.members(), *StrategyKinds.members(), *TermKinds.members()]
    models += [ModelSettings, ChainSettings]
    models += [SearchConfig.model_fields[name].annotation for name in ("constraints", "stopping")]
    for settings in models:
        for key in settings.model_fields:
            assert f"`{key}`" in text, (settings.__name__, key)
        kind = settings.model_fields.get("kind")
        assert kind is None or f"`{get_args(kind.annotation)[0]}`" in text

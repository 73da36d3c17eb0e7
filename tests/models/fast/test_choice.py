"""Which reader a model gets: a faster one only after a trial, said in the log and in results."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import promptfuse as pf
from promptfuse.models import load_model
from promptfuse.models.fast import towers
from promptfuse.models.fast.kv import KVReader
from promptfuse.models.fast.towers import TowerReader
from tests.fast_paths import needs_fast

READERS = {"mini-lm": "kv-cache", "mini-clip": "clip-tower", "mini-tone": "plain"}
TEXTS = ["A brown dog runs", "A brown dog sits in the grass", "A brown cat"]
PARENTS = ["A brown dog", "A brown dog sits", "A brown"]


@needs_fast
@pytest.mark.parametrize("name", READERS)
def test_the_embedded_models_get_their_fast_readers(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model = load_model(name)
    with caplog.at_level(logging.INFO, "promptfuse"):
        assert model.reader.name == model.reader.name == READERS[name]
    assert [(one.levelname, one.message) for one in caplog.records] == [
        ("INFO", f"{name}: texts are read by {READERS[name]}")
    ]


def term_of(model: Any) -> pf.Term:
    if model.kind == "causal-lm":
        return pf.Fluency(model)
    return pf.TextSimilarity(model, "A black bird is flying")


@pytest.mark.parametrize("name", ["gpt2", "llama", "clip", "bert-encoder"])
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_fast_paths_can_be_turned_off(
    name: str, way: str, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = term_of(load_model(checkpoint(name))).score(TEXTS, parents=PARENTS)
    if way == "environment":
        monkeypatch.setenv("PROMPTFUSE_FAST", "0")
    model = load_model(checkpoint(name), fast=way == "environment")
    assert model.reader.name == "plain"
    with pytest.MonkeyPatch.context() as patch:
        # No product of the fast library either.
        patch.setattr("promptfuse.models.fast.products._multiply", None)
        found = term_of(model).score(TEXTS, parents=PARENTS)
    assert found.tolist() == pytest.approx(fast.tolist(), abs=1e-4)
    assert found.tolist() == pytest.approx([term_of(model).exact(text) for text in TEXTS], abs=1e-5)


@needs_fast
@pytest.mark.parametrize(("name", "kind"), [("gpt2", KVReader), ("clip", TowerReader)])
@pytest.mark.parametrize("fault", ["wrong", "refused"])
def test_a_reader_that_fails_its_trial_is_not_taken(
    name: str,
    kind: Any,
    fault: str,
    checkpoint: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = kind.outputs

    def outputs(self: Any, batch: Any, branches: Any) -> torch.Tensor:
        if fault == "refused":
            raise TypeError("no such argument")
        return 1.01 * real(self, batch, branches)

    monkeypatch.setattr(kind, "outputs", outputs)
    model = load_model(checkpoint(name))
    assert model.reader.name == "plain"
    (warning,) = (one for one in caplog.records if one.levelname == "WARNING")
    assert kind.name in warning.message
    assert "plain forward pass" in warning.message
    exact = [term_of(model).exact(text) for text in TEXTS]
    assert term_of(model).score(TEXTS, parents=PARENTS).tolist() == pytest.approx(exact, abs=1e-5)


@needs_fast
def test_rows_beyond_what_held_in_the_trial_are_read_whole(
    checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = towers.TowerReader.outputs

    def outputs(self: Any, batch: Any, branches: Any) -> torch.Tensor:
        found = real(self, batch, branches)
        return found if max(map(len, batch.rows)) < 20 else -found

    monkeypatch.setattr(towers.TowerReader, "outputs", outputs)
    model = load_model(checkpoint("clip"))
    assert (model.reader.name, model.reader.longest) == ("clip-tower", 8)
    exact = [term_of(model).exact(text) for text in TEXTS]
    assert term_of(model).score(TEXTS, parents=PARENTS).tolist() == pytest.approx(exact, abs=1e-4)


@needs_fast
def test_results_say_how_texts_were_read(model: Any) -> None:
    photo = next(iter(sorted((Path(__file__).parents[3] / "examples" / "photos").glob("*.jpg"))))
    objective = pf.Objective(pf.Fluency(model("gpt2")), pf.ImageSimilarity(model("clip"), str(photo)))
    result = pf.optimize(objective, pf.AutoDAN(candidates=4), steps=1)
    assert {name: one["reader"] for name, one in result.models.items()} == {
        "fluency": "kv-cache",
        "image": "clip-tower",
    }
    # What tells models apart does not depend on how they are read.
    assert "reader" not in model("clip").describe()

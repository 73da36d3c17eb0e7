"""Kinds of models: found by their configuration, and open to those of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from torch import nn

import promptfuse as pf
from promptfuse.models import CausalLM, Model, load_model
from promptfuse.models.registry import models


@pytest.fixture
def registered() -> Iterator[type[Model]]:
    @models.register("test-masked")
    class Masked(Model):
        """A masked language model, in the place of the sentence encoder that it would be otherwise."""

        kind = "test-masked"

        @classmethod
        def matches_config(cls, config: Any, architectures: tuple[str, ...]) -> bool:
            return config.model_type == "bert"

        @classmethod
        def loader(cls, config: Any) -> Any:
            return transformers.AutoModel

        @property
        def text_module(self) -> nn.Module:
            return self.module

    yield Masked
    del models._items["test-masked"]


def test_all_kinds_have_their_names() -> None:
    assert sorted(models) == ["causal-lm", "classifier", "diffusion", "image-text", "sentence-encoder"]
    assert all(name == kind.kind for name, kind in models.items())


def test_a_kind_of_another_package_is_loaded(
    registered: type[Model], checkpoint: Callable[[str], Path]
) -> None:
    model = load_model(checkpoint("bert-encoder"))
    assert type(model) is registered
    assert type(load_model(checkpoint("gpt2"))) is CausalLM

    class Size(pf.Term):
        def loss_from_outputs(self, outputs: Any) -> Any:
            return outputs.square().mean(1)

    term = Size(model, 1.0, "", "", "size")
    texts = ["A brown dog", "Two children play in the park"]
    assert term.score(texts, parents=["A", "Two"]).tolist() == pytest.approx(
        [term.exact(text) for text in texts], abs=1e-5
    )
    assert term.has_gradient


def test_a_term_with_no_loss_of_its_own_is_refused_in_one_line(model: Callable[..., Any]) -> None:
    term = pf.Term(model("clip"), 1.0, "", "", "mine")
    with pytest.raises(pf.ConfigError, match=r"mine gives losses of shape .*loss_from_outputs"):
        term.score(["A dog", "A cat"])

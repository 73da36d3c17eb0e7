"""What a search returns."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

from promptfuse.objectives import Objective
from promptfuse.search.hypothesis import Hypothesis, Step
from promptfuse.version import __version__


@dataclass(frozen=True)
class Result:
    """The best text and how it was found.

    Attributes:
        text: the best complete text, or the best one if none was completed.
        value: its objective, scored from scratch.
        terms: its unweighted losses by term.
        weights: the weights of the terms.
        complete: whether the language model ended the text.
        history: the steps of the search.
        pareto_front: the complete texts seen that no other one beats in every term.
        exact_evaluations: how many texts were scored exactly.
        seconds: wall time of the search.
        seed: the seed of whatever was drawn.
        config: method, strategy and constraints.
        models: name, fingerprint (of embedding table and tokenizer) and identity (of all weights and
            settings) of each term's model; of a language model also ``start``, what stands before every text.
        versions: of promptfuse and what computes under it.
    """

    text: str
    value: float
    terms: dict[str, float]
    weights: dict[str, float]
    complete: bool
    history: list[Step]
    pareto_front: list[Hypothesis]
    exact_evaluations: int
    seconds: float
    seed: int
    config: dict[str, Any]
    models: dict[str, dict[str, str]]
    versions: dict[str, str] = field(default_factory=lambda: versions())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **self.__dict__,
            "history": [step.to_dict() for step in self.history],
            "pareto_front": [item.to_dict() for item in self.pareto_front],
        }

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "promptfuse": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def describe_models(objective: Objective) -> dict[str, dict[str, str]]:
    """Name, fingerprint and identity of the model of each term that has one; see ``Model.describe``."""
    return {name: term.model.describe() for name, term in objective.terms.items() if term.has_model}

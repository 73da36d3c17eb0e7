"""From the losses of the terms to one value: weights, given or standardised, and scalarisations."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from promptfuse.errors import ConfigError
from promptfuse.objectives import Objective

Weights = Literal["given", "auto"] | Mapping[str, float]
"""``given``: the terms' own. ``auto``: each term counts alike in units of its spread. A mapping: as auto,
times these numbers (1 for a term that is not named)."""

Scalarisation = Literal["weighted", "chebyshev"]
"""``weighted``: the sum of weight x loss. ``chebyshev``: the worst of the terms; see ``Weighing``."""

AUGMENTATION = 0.05
"""Share of the sum in the Chebyshev value: without it a term that is not the worst would not matter."""


class Weighing:
    """Turns losses into values.

    With ``auto``, each term is divided by the standard deviation of its loss over the first candidates,
    so that a weight means the same for every model; the sign of a term's own weight stays. The Chebyshev
    value is ``max_j w_j (L_j - z_j) + 0.05 sum_j w_j (L_j - z_j)``, the augmented Chebyshev function
    (Knowles, 2006, "ParEGO", equation 2), with the best loss of each term over the first candidates for
    z: it finds compromises that no weighted sum prefers. Both are fixed once the first candidates are
    scored, so that values of different steps compare.

    Args:
        objective: the terms; it is not changed.
        weights: see ``Weights``.
        scalarisation: see ``Scalarisation``.

    Attributes:
        objective: the objective to score with; a copy with the weights in use where they are not given.
        ready: whether values can be computed; if not, ``fit`` comes first.

    Raises:
        ConfigError: if an option or a term's name is unknown, or a weight is not positive.
    """

    def __init__(self, objective: Objective, weights: Weights, scalarisation: Scalarisation) -> None:
        if scalarisation not in get_args(Scalarisation):
            raise ConfigError(f"scalarisation: {scalarisation!r} is unknown; choose weighted or chebyshev")
        if isinstance(weights, str) and weights not in ("given", "auto"):
            raise ConfigError(
                f"weights: {weights!r} is unknown; choose given or auto, or map terms to numbers"
            )
        self.scalarisation = scalarisation
        self.weights: str | dict[str, float] = weights if isinstance(weights, str) else dict(weights)
        self.importance = dict.fromkeys(objective.terms, 1.0)
        if isinstance(self.weights, dict):
            for name, number in self.weights.items():
                if name not in objective.terms:
                    known = ", ".join(objective.terms)
                    raise ConfigError(f"weights: there is no term {name!r}; choose from: {known}")
                if not (number > 0 and math.isfinite(number)):
                    raise ConfigError(f"weights: {number} for {name} is not positive; give a number above 0")
                self.importance[name] = float(number)
        self.objective = objective
        if self.weights != "given":
            self.objective = copy.copy(objective)
            self.objective.terms = {name: copy.copy(term) for name, term in objective.terms.items()}
        self.ideal: dict[str, float] | None = None
        self.ready = self.weights == "given" and scalarisation == "weighted"

    def fit(self, losses: Mapping[str, Tensor]) -> None:
        """Fix weights and the ideal point from the losses of the first candidates, (candidates,) by term."""
        terms = self.objective.terms
        if self.weights != "given":
            for name, term in terms.items():
                spread = float(losses[name].double().std(correction=0))
                # A term that is the same for all candidates tells nothing about its scale.
                scale = spread if spread > 1e-6 else 1.0
                term.weight = math.copysign(self.importance[name] / scale, term.weight)
        self.ideal = {
            name: float(losses[name].min() if term.weight > 0 else losses[name].max())
            for name, term in terms.items()
        }
        self.ready = True

    def values(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Values of many texts, from their losses by term."""
        if self.scalarisation == "weighted":
            return self.objective.totals(losses)
        assert self.ideal is not None
        apart = torch.stack(
            [
                term.weight * (losses[name].float() - self.ideal[name])
                for name, term in self.objective.terms.items()
            ]
        )
        return apart.amax(0) + AUGMENTATION * apart.sum(0)

    def value(self, losses: Mapping[str, float]) -> float:
        """The value of one text."""
        if self.scalarisation == "weighted":
            return self.objective.total(losses)
        return float(self.values({name: torch.tensor([loss]) for name, loss in losses.items()})[0])

    def describe(self) -> dict[str, Any]:
        """The options, in plain values."""
        return {"weights": self.weights, "scalarisation": self.scalarisation}

    def state_dict(self) -> dict[str, Any]:
        """What was fixed; JSON values."""
        return {"weights": self.objective.weights, "ideal": self.ideal, "ready": self.ready}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo ``state_dict``."""
        self.ideal, self.ready = state["ideal"], state["ready"]
        if self.weights != "given":
            for name, weight in state["weights"].items():
                self.objective.terms[name].weight = weight

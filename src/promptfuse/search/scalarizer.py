"""From the losses of the terms to one value: weights, given or standardised, and scalarisations."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from promptfuse._utils.values import factor
from promptfuse.errors import ConfigError
from promptfuse.objectives import Objective
from promptfuse.search.drafts import automatic_weights
from promptfuse.search.hypothesis import Hypothesis

Weights = Literal["given", "auto"] | Mapping[str, float | str]
"""``given``: the terms' own. ``auto``: all terms on one scale, see ``Scalarizer``; the signs of your weights
are kept. A mapping: as ``auto``, times these numbers, ``2`` or ``"2x"`` (1 for other terms)."""

Scalarisation = Literal["weighted", "chebyshev"]
"""``weighted``: the sum of weight x loss. ``chebyshev``: the term that is farthest, times its weight, from
the best loss of it that was seen; see ``Scalarizer``."""

AUGMENTATION = 0.05
"""Share of the sum in the Chebyshev value: without it a term that is not the worst would not matter."""


class Scalarizer:
    """Turns losses into values.

    With ``auto``, a weight means the same for every model; the sign of a term's own weight stays. Where
    texts grow, the weights are ``automatic_weights``: fluency has weight 1, and the scale of each other term
    is taken from texts that the language model writes by itself. Methods that edit whole texts divide each
    loss by its standard deviation over their first candidates instead. The Chebyshev
    value is ``max_j w_j (L_j - z_j) + 0.05 sum_j w_j (L_j - z_j)``, the augmented Chebyshev function
    (Knowles, 2006, "ParEGO", equation 2): it finds compromises that no weighted sum prefers. The ideal
    point z is the best loss of each term over all texts scored so far, so no loss is ever below it and
    stops counting. When it moves, the values of all texts that a search holds are made anew; those of
    earlier steps in the history are by the ideal point of their time.

    Args:
        objective: the terms; it is not changed.
        weights: ``given``, ``auto``, or factors by term.
        scalarisation: ``weighted`` or ``chebyshev``.

    Attributes:
        objective: the objective to score with; a copy with the weights in use where they are not given.
        ready: whether the weights are fixed; if not, ``fit`` comes first.
        ideal: the ideal point by term; None while no text has been seen, or where it is not needed.

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
        self.importance = dict.fromkeys(objective.terms, 1.0)
        for name in () if isinstance(weights, str) else weights:
            if name not in objective.terms:
                known = ", ".join(objective.terms)
                raise ConfigError(f"weights: no term is called {name!r}; choose from: {known}")
        self.weights: str | dict[str, float] = (
            weights
            if isinstance(weights, str)
            else {name: factor(given, f"weights: {name}") for name, given in weights.items()}
        )
        self.importance |= self.weights if isinstance(self.weights, dict) else {}
        self.objective = objective
        if self.weights != "given":
            self.objective = copy.copy(objective)
            self.objective.terms = {name: copy.copy(term) for name, term in objective.terms.items()}
        self.ideal: dict[str, float] | None = None
        self.ready = self.weights == "given" and scalarisation == "weighted"

    def weigh(self, prefix: str) -> None:
        """Fix automatic weights, if they are not fixed yet, for texts that grow from a prefix."""
        if self.ready or self.weights == "given":
            return
        for name, weight in automatic_weights(self.objective, prefix).items():
            self.objective.terms[name].weight = self.importance[name] * weight
        self.ready = True

    def fit(self, losses: Mapping[str, Tensor]) -> None:
        """Fix the weights, and begin the ideal point, by the losses of the first candidates."""
        if self.weights != "given":
            for name, term in self.objective.terms.items():
                spread = float(losses[name].double().std(correction=0))
                # A term that is the same for all candidates says nothing about its scale.
                scale = spread if spread > 1e-6 else 1.0
                term.weight = math.copysign(self.importance[name] / scale, term.weight)
        self.ready = True
        self.see(losses)

    def see(self, losses: Mapping[str, Tensor]) -> bool:
        """Move the ideal point to the best losses of texts that have just been scored.

        Args:
            losses: (texts,) by term.

        Returns:
            Whether it moved, so that values from before no longer compare.
        """
        if self.scalarisation == "weighted":
            return False
        before = self.ideal
        self.ideal = self._ideal_of(losses)
        if before is not None:
            for name, term in self.objective.terms.items():
                better = min if term.weight > 0 else max
                self.ideal[name] = better(self.ideal[name], before[name])
        return self.ideal != before

    def _ideal_of(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """The best loss of each term."""
        return {
            name: float(losses[name].min() if term.weight > 0 else losses[name].max())
            for name, term in self.objective.terms.items()
        }

    def values(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Values of many texts, from their losses by term; before any was seen, they are all there is."""
        if self.scalarisation == "weighted":
            return self.objective.totals(losses)
        ideal = self._ideal_of(losses) if self.ideal is None else self.ideal
        apart = torch.stack(
            [
                term.weight * (losses[name].float() - ideal[name])
                for name, term in self.objective.terms.items()
            ]
        )
        return apart.amax(0) + AUGMENTATION * apart.sum(0)

    def revalued(self, items: Iterable[Hypothesis]) -> list[Hypothesis]:
        """Texts with their values by the ideal point as it is now; those not scored stay as they are."""
        return [replace(item, value=self.value(item.terms)) if item.terms else item for item in items]

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
        """Restore what ``state_dict`` gave."""
        self.ideal, self.ready = state["ideal"], state["ready"]
        if self.weights != "given":
            for name, weight in state["weights"].items():
                self.objective.terms[name].weight = weight

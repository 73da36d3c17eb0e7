"""What a method may need of the models; a method lists these in ``requires``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptfuse.errors import ConfigError

if TYPE_CHECKING:
    from promptfuse.objectives import Objective


@dataclass(frozen=True)
class Requirement:
    """Something that a method cannot do without.

    Attributes:
        name: what is needed, as it follows "needs" in a sentence.
        problem: given the objective, which model lacks it and what to do about that, as it follows "but";
            None where nothing is lacking.
    """

    name: str
    problem: Callable[[Objective], str | None]


def _no_primary(objective: Objective) -> str | None:
    try:
        _ = objective.primary
    except ConfigError:
        names = ", ".join(
            dict.fromkeys(term.model.name for term in objective.terms.values() if term.has_model)
        )
        return f"{names or 'no model'} proposes no words; add a Fluency term with a causal language model"
    return None


def _no_gradient(objective: Objective) -> str | None:
    terms = objective.terms.values()
    if any(term.has_gradient for term in terms):
        return None
    names = list(dict.fromkeys(term.model.name for term in terms if term.has_model))
    given = f"{' and '.join(names)} give{'s' * (len(names) == 1)} none" if names else "no term has a model"
    return f"{given}; use RandomSearch or Polish"


def _no_cache(objective: Objective) -> str | None:
    primary = objective.primary
    if primary.reader.name != "plain":
        return None
    return f"{primary.name} reads every text whole; load it with fast=True, or use another model"


CAUSAL_PRIMARY = Requirement("a causal language model", _no_primary)
"""A causal language model among the terms, whose tokens are searched. Every method needs it."""

GRADIENTS = Requirement("gradients", _no_gradient)
"""At least one term whose model gives gradients at its input embeddings."""

PREFIX_CACHE = Requirement("a prefix cache", _no_cache)
"""A primary that reads what texts have in common once."""

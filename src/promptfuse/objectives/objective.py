"""The weighted sum of terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Num
from torch import Tensor

from promptfuse.errors import ConfigError, TextError
from promptfuse.models import CausalLM, Model
from promptfuse.objectives.base import Term
from promptfuse.objectives.checks import check_texts, check_unicode
from promptfuse.objectives.fluency import Fluency


@dataclass(frozen=True)
class Evaluation:
    """The value of one text and the (unweighted) losses that make it up."""

    value: float
    terms: dict[str, float]


def _no_term(given: object) -> str:
    """What to do about something that is not a term."""
    if isinstance(given, Model):
        return f"the model {given.name} is not a term; say what it is to judge, e.g. Fluency(lm)"
    if isinstance(given, Objective):
        return (
            "an objective is not a term; put its terms into one objective, "
            "Objective(*first.terms.values(), ...)"
        )
    name = f"the class {given.__name__}" if isinstance(given, type) else f"{given!r:.60}"
    return f"{name} is not a term; give terms such as Fluency(lm)"


class Objective:
    """L(text) = sum over terms of weight x loss; lower is better.

    Args:
        terms: the terms, or lists of them; two with the same name get numbers after it.

    Raises:
        ConfigError: if there are no terms, or something else is among them.
    """

    def __init__(self, *terms: Term | Sequence[Term]) -> None:
        flat = [one for item in terms for one in (item if isinstance(item, list | tuple) else [item])]
        if not flat:
            raise ConfigError("an objective needs at least one term, e.g. Fluency(lm)")
        self.terms: dict[str, Term] = {}
        for term in flat:
            if not isinstance(term, Term):
                raise ConfigError(_no_term(term))
            name, number = term.name, 2
            while name in self.terms:
                name, number = f"{term.name}_{number}", number + 1
            self.terms[name] = term

    def __repr__(self) -> str:
        """The terms with their weights."""
        return f"Objective({', '.join(f'{name} x {term.weight:g}' for name, term in self.terms.items())})"

    @classmethod
    def of(cls, given: Objective | Term | Sequence[Term]) -> Objective:
        """An objective as it is, or the one of a term or of a list of terms.

        Raises:
            ConfigError: for anything else.
        """
        return given if isinstance(given, Objective) else cls(given)

    @property
    def weights(self) -> dict[str, float]:
        """The weights by term."""
        return {name: term.weight for name, term in self.terms.items()}

    def describe(self) -> dict[str, dict[str, Any]]:
        """What the objective is made of, by term, in plain values: two alike judge every text alike."""
        return {name: term.describe() for name, term in self.terms.items()}

    @property
    def primary(self) -> CausalLM:
        """The language model whose vocabulary is searched.

        That of the first ``Fluency`` term, reading after that term's prefix or context; if there is none,
        that of the first term that has one.
        """
        models: list[Model] = [term.lm for term in self.terms.values() if isinstance(term, Fluency)]
        models += [term.model for term in self.terms.values() if term.has_model]
        for model in models:
            if isinstance(model, CausalLM):
                return model
        raise ConfigError("the search needs a language model to propose words; add a Fluency term")

    def exact(self, text: str) -> Evaluation:
        """Score one string from scratch: a fresh encode, batch of one, no cache in every model.

        Raises:
            TextError: if it is not a text, is empty or does not fit a model.
        """
        if not isinstance(text, str):
            raise TextError(f"{text!r:.60} is not a text; give a string, or score(texts) several")
        check_unicode(text, "text")
        if not text.strip():
            raise TextError("the text is empty; give at least one word")
        losses = {name: term.exact(text) for name, term in self.terms.items()}
        return Evaluation(self.total(losses), losses)

    def fits(self, text: str) -> bool:
        """Whether every model has room for the text."""
        try:
            for term in self.terms.values():
                term.check(text)
        except TextError:
            return False
        return True

    def score(
        self,
        texts: Sequence[str],
        *,
        known: Mapping[str, Num[Tensor, " texts"]] | None = None,
        batch_size: int | None = None,
        parents: Sequence[str] | None = None,
    ) -> dict[str, Num[Tensor, " texts"]]:
        """Losses of many texts by term, each (len(texts),).

        Args:
            texts: the texts.
            known: losses that the caller has already, by term, to save the forward pass.
            batch_size: the most rows in one forward pass, None for as many as fit; it does not change the
                losses beyond rounding.
            parents: for each text the text that it grew from, so that what they share is read once; None
                to read every text whole.

        Raises:
            TextError: if they are no texts, or one does not fit a model.
        """
        check_texts(texts)
        known = known or {}
        return {
            name: known[name] if name in known else term.score(texts, batch_size, parents).cpu()
            for name, term in self.terms.items()
        }

    def total(self, losses: Mapping[str, float]) -> float:
        """The weighted sum of one text's losses."""
        return sum(term.weight * losses[name] for name, term in self.terms.items())

    def totals(self, losses: Mapping[str, Num[Tensor, "*texts"]]) -> Num[Tensor, "*texts"]:
        """The weighted sums of many texts' losses."""
        return torch.stack([term.weight * losses[name] for name, term in self.terms.items()]).sum(0)

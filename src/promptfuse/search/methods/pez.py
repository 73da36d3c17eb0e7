"""PEZ: gradient descent on soft embeddings, through their projection to tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from promptfuse.objectives import Fluency, Term
from promptfuse.objectives.gradients import common_segments, text_gradient
from promptfuse.search.hypothesis import Hypothesis, Proposal
from promptfuse.search.methods.base import Method, at_least, require
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.proposer import EditProposer, Proposed
from promptfuse.search.methods.registry import methods
from promptfuse.search.methods.requirements import CAUSAL_PRIMARY, GRADIENTS, Requirement
from promptfuse.search.methods.swaps import SwapEstimator, pulled, same_model
from promptfuse.search.state import tensor_from_json, tensor_to_json


@methods.register("PEZ")
@dataclass(frozen=True)
class PEZ(Method):
    """Projected gradient on soft embeddings: hard prompts made easy.

    Wen et al. (2023), arXiv 2302.03668, algorithm 1. Each beam has continuous embeddings of its own. The
    gradient is taken at their projection, the nearest token of each by cosine as in the authors' code,
    and applied to the continuous embeddings with AdamW. The text is the projection.

    Where it differs: a projection reads back to the same tokens, or those at fault become the nearest
    tokens that are whole words; a step lasts until the projection is another text that keeps the
    constraints, since nothing else is there to be scored, or for ``updates`` updates (the paper's step
    is one update; it takes 3,000 of them). The gradient of a term under another model comes through the
    t-product map (Williams & Kolter, 2024, section 4).

    Attributes:
        length: tokens of the prompt; they begin as words drawn at random.
        init: a text to begin with in their place.
        lr: AdamW's learning rate.
        weight_decay: AdamW's decoupled decay.
        updates: the most updates in a step.
        transport: ``t-product``, ``t-product-paper``, or ``none`` to follow the primary's terms alone.
    """

    requires: ClassVar[tuple[Requirement, ...]] = (CAUSAL_PRIMARY, GRADIENTS)

    length: int = 16
    init: str | None = None
    lr: float = 0.1
    weight_decay: float = 0.1
    updates: int = 16
    transport: Literal["t-product", "t-product-paper", "none"] = "t-product"

    def __post_init__(self) -> None:
        at_least("length", self.length)
        at_least("updates", self.updates)
        require(0 < self.lr < 1e3, f"lr: {self.lr} is out of range; give a number above 0")
        require(
            0 <= self.weight_decay < 10, f"weight_decay: {self.weight_decay} is out of range; give 0 to 10"
        )
        require(
            self.transport in ("t-product", "t-product-paper", "none"),
            f"transport: {self.transport!r} has no gradient for soft embeddings; choose t-product, "
            "t-product-paper or none",
        )

    def proposer(self, context: SearchContext) -> PEZProposer:
        """What makes each step's proposals."""
        return PEZProposer(context, self)


BETAS = (0.9, 0.999)
EPSILON = 1e-8


@dataclass(frozen=True)
class SoftPrompt:
    """Continuous embeddings after the prefix, and AdamW's state.

    Attributes:
        embeddings: (tokens, d).
        first: AdamW's first moment, of the same shape.
        second: its second moment.
        updates: how many were made.
        ids: the projection's tokens, prefix included.
        text: the projection; it may break the constraints, the text of a beam does not.
    """

    embeddings: Float[Tensor, "tokens d"]
    first: Float[Tensor, "tokens d"]
    second: Float[Tensor, "tokens d"]
    updates: int
    ids: tuple[int, ...]
    text: str

    def stepped(self, gradient: Float[Tensor, "tokens d"], lr: float, weight_decay: float) -> SoftPrompt:
        """After one update of AdamW (Loshchilov and Hutter, 2019, algorithm 2); projection unchanged."""
        count = self.updates + 1
        first = BETAS[0] * self.first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * self.second + (1 - BETAS[1]) * gradient.square()
        step = first / (1 - BETAS[0] ** count) / ((second / (1 - BETAS[1] ** count)).sqrt() + EPSILON)
        embeddings = self.embeddings * (1 - lr * weight_decay) - lr * step
        return replace(self, embeddings=embeddings, first=first, second=second, updates=count)


class PEZProposer(EditProposer):
    """Each beam carries a soft prompt of its own."""

    stateful: ClassVar[bool] = True

    def __init__(self, context: SearchContext, method: PEZ) -> None:
        super().__init__(context)
        self.method = method
        self.estimator = SwapEstimator(context, method.transport)
        self.generator = context.generator()
        self.prompts: dict[str, SoftPrompt] = {}
        table = self.primary.embedding_table.float().cpu()
        self.table = table
        self.tokens = self.allowed.nonzero()[:, 0]
        self.words = torch.tensor(sorted(context.whole_words), dtype=torch.long)
        self._directions = {
            name: functional.normalize(table[ids], dim=1)
            for name, ids in (("any", self.tokens), ("word", self.words))
        }
        self._labels = LabelGradient(table) if self._predicts() else None

    def _predicts(self) -> bool:
        return any(
            isinstance(term, Fluency) and same_model(term.model, self.primary)
            for term in self.context.objective.terms.values()
        )

    def initial_texts(self) -> list[str]:
        """One text for each beam, unless the text is given; prefix included."""
        if self.method.init is not None:
            return [self.after_prefix(self.method.init)]
        return self.random_texts(self.method.length, self.context.width, self.generator)

    def propose(self, beams: Sequence[Hypothesis]) -> Proposed:
        """Proposals for the next texts."""
        found = []
        moved: dict[str, SoftPrompt] = {}
        for number, beam in enumerate(beams):
            prompt = self.prompts.pop(beam.text, None) or self._prompt(beam)
            prompt = self._advanced(prompt, beam)
            text, ids = (prompt.text, prompt.ids) if self._legal(prompt) else (beam.text, beam.ids)
            if text not in moved:  # Two prompts that meet in one text continue as one.
                moved[text] = prompt
                found.append(Proposal(text, ids, None, number))
        self.prompts |= moved
        return Proposed(found, [])

    def _legal(self, prompt: SoftPrompt) -> bool:
        """Whether the projection may be proposed."""
        allowed = self.constraints.allows(prompt.text, len(prompt.ids)) and self.leaves_prefix(prompt.text)
        return allowed and self.context.readable(prompt.text)

    def _prompt(self, beam: Hypothesis) -> SoftPrompt:
        free = torch.tensor(beam.ids[self.fixed(beam.ids) or 0 :], dtype=torch.long)
        here = self.table[free].clone()
        zero = torch.zeros_like(here)
        return SoftPrompt(here, zero, zero, 0, beam.ids, beam.text)

    def _advanced(self, prompt: SoftPrompt, beam: Hypothesis) -> SoftPrompt:
        """Update until the projection is another text that keeps the rules, or as often as is allowed."""
        if not len(prompt.embeddings):
            return prompt
        # The gradient is that at the projection, so it is the same until the projection changes.
        gradient = self._gradient(prompt)
        for _ in range(self.method.updates):
            prompt = prompt.stepped(gradient, self.method.lr, self.method.weight_decay)
            projected = self.project(prompt.embeddings)
            # Where there is not a text, or none that fits the models, the last gradient is used again.
            if projected is None or projected[1] == prompt.text or not self._fits(projected[1]):
                continue
            ids, text = projected
            prompt = replace(prompt, ids=ids, text=text)
            if text != beam.text and self._legal(prompt):
                break
            gradient = self._gradient(prompt)
        return prompt

    def _fits(self, text: str) -> bool:
        return self.context.objective.fits(text)

    def project(self, embeddings: Float[Tensor, "tokens d"]) -> tuple[tuple[int, ...], str] | None:
        """The nearest text that reads back to its own tokens: its ids and the string.

        Args:
            embeddings: (tokens, d), after the prefix.

        Returns:
            None if there is no such text even of whole words.
        """
        prefix = self.context.prefix_ids
        directions = functional.normalize(embeddings, dim=1)
        nearest = self.tokens[(directions @ self._directions["any"].T).argmax(1)].tolist()
        whole: set[int] = set()
        while True:
            ids = [*prefix, *nearest]
            (text,) = self.primary.decode([ids])
            (again,) = self.primary.plain_ids([text])
            if again == ids:
                return tuple(ids), text
            left = [at for at in range(len(nearest)) if at not in whole]
            if not left or not len(self.words):
                return None
            wrong = next(
                (at for at, (a, b) in enumerate(zip(again, ids, strict=False)) if a != b), len(again)
            )
            # The token that reads otherwise, or the next to it, becomes a word, which cannot glue.
            at = min(left, key=lambda index: abs(index - (wrong - len(prefix))))
            whole.add(at)
            nearest[at] = int(self.words[(self._directions["word"] @ directions[at]).argmax()])

    def _gradient(self, prompt: SoftPrompt) -> Float[Tensor, "tokens d"]:
        """The objective's gradient at the projected embeddings, (tokens, d)."""
        ids = prompt.ids
        spans = self.estimator.primary_spans(prompt.text, ids)
        found = torch.zeros(len(ids), self.table.shape[1])
        for term in self.context.objective.terms.values():
            if not term.has_gradient:
                continue
            if same_model(term.model, self.primary):
                found += term.weight * self._own(term, prompt.text, ids, spans)
            elif self.method.transport != "none":
                gradient = text_gradient(term, prompt.text)
                segments = common_segments(prompt.text, spans, gradient.spans)
                carrier = self.estimator.primary_transport(term.model)
                found += term.weight * pulled(carrier, gradient, segments, len(ids))
        return found[len(self.context.prefix_ids) :]

    def _own(
        self, term: Term, text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]]
    ) -> Float[Tensor, "{len(ids)} d"]:
        """A term under the primary itself, token by token."""
        gradient = text_gradient(term, text)
        found = torch.zeros(len(ids), self.table.shape[1])
        for own, other in common_segments(text, spans, gradient.spans):
            part = slice(other.start, other.stop)
            if gradient.ids[part].tolist() != list(ids[own.start : own.stop]):
                continue
            found[own.start : own.stop] = gradient.gradient[part]
            if gradient.labels is not None and self._labels is not None:
                found[own.start : own.stop] += self._labels.at(gradient.labels[part])
        return found

    def state_dict(self) -> dict[str, Any]:
        """The soft prompts; the generator has done its work."""
        return {
            "prompts": {
                key: {
                    "tensors": tensor_to_json(torch.stack([prompt.embeddings, prompt.first, prompt.second])),
                    "updates": prompt.updates,
                    "ids": list(prompt.ids),
                    "text": prompt.text,
                }
                for key, prompt in self.prompts.items()
            }
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.prompts = {}
        for key, values in state["prompts"].items():
            embeddings, first, second = tensor_from_json(values["tensors"]).unbind(0)
            self.prompts[key] = SoftPrompt(
                embeddings, first, second, values["updates"], tuple(values["ids"]), values["text"]
            )


class LabelGradient:
    """A fluency term's gradient at tokens as what is predicted, as one at their embeddings.

    The loss of predicting token v, -log p(v), is a function on the vocabulary. Its best linear function of
    the embeddings (least squares over the vocabulary) has the gradient that is wanted; where the output
    matrix is the embedding table that is exact.

    Args:
        table: (rows, d).
    """

    def __init__(self, table: Float[Tensor, "vocabulary d"]) -> None:
        self.centred = table - table.mean(0)
        width = table.shape[1]
        gram = torch.zeros(width, width, dtype=torch.float64)
        for start in range(0, len(table), 8192):
            rows = self.centred[start : start + 8192].double()
            gram += rows.T @ rows
        ridge = 1e-6 * gram.diagonal().mean().clamp_min(1e-30)
        self.factor = torch.linalg.cholesky(gram + ridge * torch.eye(width, dtype=gram.dtype))

    def at(self, labels: Float[Tensor, "tokens vocabulary"]) -> Float[Tensor, "tokens d"]:
        """Gradients (tokens, d), from (tokens, rows)."""
        values = labels[:, : len(self.centred)].to(self.centred)
        against = (values - values.mean(1, keepdim=True)) @ self.centred[: values.shape[1]]
        return torch.cholesky_solve(against.double().T, self.factor).T.float()

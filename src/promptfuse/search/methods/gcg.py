"""GCG: swaps of tokens that the gradient points to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.search.hypothesis import Hypothesis, Proposal
from promptfuse.search.methods.base import Method, at_least, require
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.probe_sampling import ProbeSampler
from promptfuse.search.methods.proposer import EditProposer, Proposed, Sampling
from promptfuse.search.methods.registry import methods
from promptfuse.search.methods.requirements import CAUSAL_PRIMARY, GRADIENTS, Requirement
from promptfuse.search.methods.swaps import SwapEstimator
from promptfuse.search.methods.transports import Transports, check_transport
from promptfuse.search.state import tensor_from_json, tensor_to_json

_DRAWS = 16
"""Times that several swaps are drawn before a step has fewer texts than asked for."""


@methods.register("GCG")
@dataclass(frozen=True)
class GCG(Method):
    """Greedy coordinate gradient: swap tokens that the gradient points to.

    Zou et al. (2023), arXiv 2307.15043, algorithm 1. The gradient of the objective with respect to the
    one-hot tokens names the ``top_k`` best swaps at every position; ``batch`` of all these are drawn
    uniformly and scored exactly, and the best replaces the text, even if it is worse.

    Where it differs: swaps are drawn without replacement; only those are scored whose text reads back to
    the same tokens and keeps the constraints; the gradient of a term under another model comes through a
    transport (Williams & Kolter, 2024). The paper takes 500 steps.

    Later papers' additions are off by default: several swaps at once, a buffer, momentum, a draft model.

    Attributes:
        init: the text that is changed, after the search's prefix; the paper's is twenty marks.
        top_k: swaps at each position that may be drawn.
        batch: texts scored exactly per beam and step.
        transport: ``lexical`` (exact for tokens that are whole words; a swap of another kind is taken to
            change the term as the average one), ``t-product``, ``t-product-paper``, ``sparse-sums``,
            ``similarities``, ``landmark-pca`` (for tokens of every kind), ``auto`` or ``none``.
        swaps: tokens swapped at once, at positions drawn uniformly.
        last_swaps: if given, the number of swaps goes from ``swaps`` to this, linearly over ``swap_steps``
            (Sitawarin et al., 2024, arXiv 2402.09674, appendix A; they go from 2 to 1 or stay at 1).
        swap_steps: steps after which the number of swaps stays at ``last_swaps``.
        buffer: 0 continues from the best new text, as the paper does. Otherwise from the best text so far,
            beginning with the best of so many: ``init`` and texts of random words, as many tokens long
            (Hayase et al., 2024, arXiv 2402.12329, algorithm 1). The first step scores these alone if there
            are several. The strategy's width says how many texts are continued.
        momentum: m of the mean m x earlier + (1 - m) x new gradient that swaps are chosen by (Zhang and
            Wei, 2024, arXiv 2405.01229, algorithm 2; they take 0.6).
        draft: name or folder of a small language model, of any tokenizer, for probe sampling (Zhao et al.,
            2024, arXiv 2403.01251): it says which of the ``batch`` texts are scored exactly. Then ``batch``
            counts those that the draft reads.
        draft_start: what the draft reads before every text, as ``start`` of ``load_model``.
        probe: one of so many texts is scored whatever the draft says, to see how far it can be trusted.
        reduction: the paper's R; the draft's choice is at most one of so many texts.
    """

    requires: ClassVar[tuple[Requirement, ...]] = (CAUSAL_PRIMARY, GRADIENTS)

    init: str = "! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! !"
    top_k: int = 256
    batch: int = 512
    transport: Transports | Literal["none"] = "lexical"
    swaps: int = 1
    last_swaps: int | None = None
    swap_steps: int = 500
    buffer: int = 0
    momentum: float = 0.0
    draft: str | None = None
    draft_start: str = "auto"
    probe: int = 16
    reduction: int = 8

    def __post_init__(self) -> None:
        require(bool(self.init.strip()), "init: the initial text is empty; give at least one token")
        for name in ("top_k", "batch", "swaps", "swap_steps", "probe", "reduction"):
            at_least(name, getattr(self, name))
        if self.last_swaps is not None:
            at_least("last_swaps", self.last_swaps)
        at_least("buffer", self.buffer, 0)
        require(0 <= self.momentum < 1, f"momentum: {self.momentum} is out of range; give 0 to below 1")
        check_transport(self.transport)

    def describe(self) -> dict[str, Any]:
        """The settings with the method's name; those of later papers only where they are used."""
        usual = {name: getattr(GCG, name) for name in _ADDED}
        found = super().describe()
        return {name: value for name, value in found.items() if name not in usual or value != usual[name]}

    def swaps_at(self, step: int) -> int:
        """Tokens swapped at once in a step, counted from 0."""
        if self.last_swaps is None:
            return self.swaps
        share = min(step / max(self.swap_steps - 1, 1), 1.0)
        return round(self.swaps + (self.last_swaps - self.swaps) * share)

    def proposer(self, context: SearchContext) -> GCGProposer:
        """What makes each step's proposals."""
        return GCGProposer(context, self)


_ADDED = (
    *("swaps", "last_swaps", "swap_steps", "buffer", "momentum"),
    *("draft", "draft_start", "probe", "reduction"),
)
"""Settings that searches of earlier versions do not have."""


class GCGProposer(Sampling, EditProposer):
    """Draws from the best swaps of every token."""

    def __init__(self, context: SearchContext, method: GCG) -> None:
        super().__init__(context)
        self.method = method
        self.keeps_parents = method.buffer > 0
        self.estimator = SwapEstimator(context, method.transport)
        self.sampler = (
            ProbeSampler(context, method.draft, method.draft_start, method.probe, method.reduction)
            if method.draft is not None
            else None
        )
        self.step = 0
        self.averages: dict[str, Tensor] = {}

    def initial_texts(self) -> list[str]:
        """The texts to begin with, prefix included."""
        first = self.after_prefix(self.method.init)
        if self.method.buffer < 2:
            return [first]
        length = len(self.hypothesis(first).ids) - len(self.context.prefix_ids)
        return [first, *self.random_texts(length, self.method.buffer - 1, self.generator)]

    def propose(self, beams: Sequence[Hypothesis]) -> Proposed:
        """Proposals for the next texts."""
        if self.method.buffer > 1 and not any(beam.terms for beam in beams):
            return Proposed([], [])  # They are scored first.
        found: list[Proposal] = []
        seen = {beam.text for beam in beams}
        averages = {}
        for number, beam in enumerate(beams):
            changes = self._changes(beam)
            averages[beam.text] = changes
            kept = 0
            for rows in self._drawn(beam, self._options(beam, changes.clone())):
                for row, text in zip(rows, self.decode(rows), strict=True):
                    if text is not None and text not in seen and kept < self.method.batch:
                        seen.add(text)
                        kept += 1
                        found.append(Proposal(text, tuple(row), None, number))
                if kept == self.method.batch:
                    break
        self.averages = averages if self.method.momentum else {}
        self.step += 1
        if self.sampler is None:
            return Proposed(found, [])
        return self.sampler.choose(found, beams, self.generator)

    def _changes(self, beam: Hypothesis) -> Float[Tensor, "{len(beam.ids)} vocabulary"]:
        """What swaps would change, averaged over the steps that led to a text."""
        changes = self.estimator.changes(beam.text, beam.ids)
        before = self.averages.get(beam.text, self.averages.get(beam.parent))
        if before is None or before.shape != changes.shape:
            return changes
        return self.method.momentum * before + (1 - self.method.momentum) * changes

    def _options(
        self, beam: Hypothesis, changes: Float[Tensor, "{len(beam.ids)} vocabulary"]
    ) -> dict[int, list[int]]:
        """The tokens that may be drawn for each position after the prefix: the ``top_k`` best."""
        first = self.fixed(beam.ids) or 0
        changes = changes[first:]
        changes[:, ~self.allowed] = torch.inf
        changes.scatter_(1, torch.tensor(beam.ids[first:])[:, None], torch.inf)
        best = changes.topk(min(self.method.top_k, changes.shape[1]), dim=1, largest=False)
        found = {}
        for at, (tokens, values) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True)):
            # Not in the order of their promise: rounding would change which of them are drawn.
            usable = sorted(token for token, value in zip(tokens, values, strict=True) if value < torch.inf)
            if usable:
                found[first + at] = usable
        return found

    def _drawn(self, beam: Hypothesis, options: dict[int, list[int]]) -> Iterator[list[list[int]]]:
        """Rows of tokens after swaps, ``batch`` at a time."""
        count = min(self.method.swaps_at(self.step), len(options))
        size = self.method.batch
        if count == 1:
            pairs = [(at, token) for at, tokens in options.items() for token in tokens]
            # One draw for each beam, whatever becomes of the proposals: a resumed search draws the same.
            order = self.generator.permutation(len(pairs))
            for start in range(0, len(order), size):
                chosen = [pairs[index] for index in order[start : start + size]]
                yield [[*beam.ids[:at], token, *beam.ids[at + 1 :]] for at, token in chosen]
            return
        places = list(options)
        for _ in range(_DRAWS if count else 0):
            rows = []
            for _ in range(size):
                row = list(beam.ids)
                for index in self.generator.permutation(len(places))[:count].tolist():
                    tokens = options[places[index]]
                    row[places[index]] = tokens[int(self.generator.integers(len(tokens)))]
                rows.append(row)
            yield rows

    def state_dict(self) -> dict[str, Any]:
        """The generator's state, the number of steps and the averages of the gradients."""
        averages = {text: tensor_to_json(changes) for text, changes in self.averages.items()}
        return {**super().state_dict(), "step": self.step, "averages": averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        super().load_state_dict(state)
        self.step = state.get("step", 0)
        self.averages = {
            text: tensor_from_json(changes) for text, changes in state.get("averages", {}).items()
        }

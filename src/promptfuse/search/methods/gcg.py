"""GCG: swaps of single tokens that the gradient points to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from promptfuse.search.hypothesis import Hypothesis, Proposal
from promptfuse.search.methods.base import Method, at_least, require
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.proposer import EditProposer, Proposed, Sampling
from promptfuse.search.methods.registry import methods
from promptfuse.search.methods.requirements import CAUSAL_PRIMARY, GRADIENTS, Requirement
from promptfuse.search.methods.swaps import SwapEstimator
from promptfuse.search.methods.transports import Transports, check_transport


@methods.register("GCG")
@dataclass(frozen=True)
class GCG(Method):
    """Greedy coordinate gradient: swap single tokens that the gradient points to.

    Zou et al. (2023), arXiv 2307.15043, algorithm 1. The gradient of the objective with respect to the
    one-hot tokens names the ``top_k`` best swaps at every position; ``batch`` of all these are drawn
    uniformly and scored exactly, and the best replaces the text, even if it is worse.

    Where it differs: swaps are drawn without replacement; only those are scored whose text reads back to
    the same tokens and keeps the constraints; the gradient of a term under another model comes through a
    transport (Williams & Kolter, 2024). The paper takes 500 steps.

    Attributes:
        init: the text that is changed, after the search's prefix; the paper's is twenty marks.
        top_k: swaps at each position that may be drawn.
        batch: texts scored exactly per beam and step.
        transport: ``lexical`` (exact for tokens that are whole words; a swap of another kind is taken to
            change the term as the average one), ``t-product``, ``t-product-paper``, or ``none``.
    """

    requires: ClassVar[tuple[Requirement, ...]] = (CAUSAL_PRIMARY, GRADIENTS)

    init: str = "! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! !"
    top_k: int = 256
    batch: int = 512
    transport: Transports | Literal["none"] = "lexical"

    def __post_init__(self) -> None:
        require(bool(self.init.strip()), "init: the initial text is empty; give at least one token")
        at_least("top_k", self.top_k)
        at_least("batch", self.batch)
        check_transport(self.transport)

    def proposer(self, context: SearchContext) -> GCGProposer:
        """What makes each step's proposals."""
        return GCGProposer(context, self)


class GCGProposer(Sampling, EditProposer):
    """Draws from the best swaps of every token."""

    def __init__(self, context: SearchContext, method: GCG) -> None:
        super().__init__(context)
        self.method = method
        self.estimator = SwapEstimator(context, method.transport)

    def initial_texts(self) -> list[str]:
        """The texts to begin with, prefix included."""
        return [self.after_prefix(self.method.init)]

    def propose(self, beams: Sequence[Hypothesis]) -> Proposed:
        """Proposals for the next texts."""
        found: list[Proposal] = []
        seen = {beam.text for beam in beams}
        for number, beam in enumerate(beams):
            pairs = self._swaps(beam)
            # One draw for each beam, whatever becomes of the proposals: a resumed search draws the same.
            order = self.generator.permutation(len(pairs))
            kept = 0
            for start in range(0, len(order), self.method.batch):
                chosen = [pairs[index] for index in order[start : start + self.method.batch]]
                rows = [[*beam.ids[:at], token, *beam.ids[at + 1 :]] for at, token in chosen]
                for row, text in zip(rows, self.decode(rows), strict=True):
                    if text is not None and text not in seen and kept < self.method.batch:
                        seen.add(text)
                        kept += 1
                        found.append(Proposal(text, tuple(row), None, number))
                if kept == self.method.batch:
                    break
        return Proposed(found, [])

    def _swaps(self, beam: Hypothesis) -> list[tuple[int, int]]:
        """The swaps that may be drawn: the ``top_k`` best of each position after the prefix."""
        first = self.fixed(beam.ids) or 0
        changes = self.estimator.changes(beam.text, beam.ids)[first:]
        changes[:, ~self.allowed] = torch.inf
        changes.scatter_(1, torch.tensor(beam.ids[first:])[:, None], torch.inf)
        best = changes.topk(min(self.method.top_k, changes.shape[1]), dim=1, largest=False)
        # Not in the order of their promise: rounding would change which of them are drawn.
        return [
            (first + at, token)
            for at, (tokens, values) in enumerate(
                zip(best.indices.tolist(), best.values.tolist(), strict=True)
            )
            for token, value in sorted(zip(tokens, values, strict=True))
            if value < torch.inf
        ]

"""GCG: swaps of single tokens that the gradient points to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from promptfuse.search.hypothesis import Hypothesis, Proposal
from promptfuse.search.methods.proposer import EditProposer, Proposed, SearchContext
from promptfuse.search.methods.settings import GCG
from promptfuse.search.methods.swaps import SwapEstimator


class GCGProposer(EditProposer):
    """Draws from the best swaps of every token; see ``GCG``."""

    def __init__(self, setting: SearchContext, method: GCG) -> None:
        super().__init__(setting)
        self.method = method
        self.estimator = SwapEstimator(setting, method.transport)
        self.generator = setting.generator()

    def initial_texts(self) -> list[str]:
        """See ``EditProposer.initial_texts``."""
        return [self.behind_prefix(self.method.init)]

    def propose(self, beams: Sequence[Hypothesis]) -> Proposed:
        """See ``Proposer.propose``."""
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
        """The swaps that may be drawn: the ``top_k`` best of each position behind the prefix."""
        first = self.fixed(beam.ids) or 0
        changes = self.estimator.changes(beam.text, beam.ids)[first:]
        changes[:, ~self.allowed] = torch.inf
        changes.scatter_(1, torch.tensor(beam.ids[first:])[:, None], torch.inf)
        best = changes.topk(min(self.method.top_k, changes.shape[1]), dim=1, largest=False)
        return [
            (first + at, token)
            for at, (tokens, values) in enumerate(
                zip(best.indices.tolist(), best.values.tolist(), strict=True)
            )
            for token, value in zip(tokens, values, strict=True)
            if value < torch.inf
        ]

    def state_dict(self) -> dict[str, Any]:
        """The generator's state."""
        return {"generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo ``state_dict``."""
        self.generator.bit_generator.state = state["generator"]

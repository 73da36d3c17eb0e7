"""Probe sampling: a small draft model says which proposals are worth an exact score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.adapters.diagnostics.ranking import spearman
from promptfuse.errors import ConfigError
from promptfuse.models import CausalLM, load_model
from promptfuse.objectives import Objective, TargetContinuation
from promptfuse.search.hypothesis import Hypothesis, Proposal
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.proposer import Proposed


class ProbeSampler:
    """Chooses proposals as probe sampling does (Zhao et al., 2024, arXiv 2403.01251, algorithm 1).

    The draft scores all B proposals, the objective scores a random probe set of B / ``probe``. From their
    rank correlation rho on the probe set follows how far the draft is trusted: of all proposals those
    (1 - rho) / 2 x B / ``reduction`` are kept that the draft likes best, beside the probe set.

    The draft reads strings, so its tokenizer may be another one. The paper's draft shares the tokenizer.

    Args:
        context: of the search; the objective's targets are asked of the draft.
        draft: a model's name or folder.
        start: what the draft reads before every text.
        probe: one of so many proposals is in the probe set.
        reduction: the paper's R.

    Raises:
        ConfigError: if the draft is no causal language model, or the objective has no target.
    """

    def __init__(self, context: SearchContext, draft: str, start: str, probe: int, reduction: int) -> None:
        self.context = context
        self.probe = probe
        self.reduction = reduction
        targets = [term for term in context.objective.terms.values() if isinstance(term, TargetContinuation)]
        if not targets:
            raise ConfigError("draft: it judges targets; add a TargetContinuation term or leave it out")
        model = load_model(draft, device=context.primary.device, start=start)
        if not isinstance(model, CausalLM):
            raise ConfigError(f"draft: {draft} is a {model.kind}; give a causal language model")
        self.objective = Objective(*(term.under(model) for term in targets))

    def choose(
        self, proposals: Sequence[Proposal], beams: Sequence[Hypothesis], generator: np.random.Generator
    ) -> Proposed:
        """The proposals to be scored, with the exact losses of the probe set.

        Args:
            proposals: all of them.
            beams: those that they come from.
            generator: draws the probe set.
        """
        count = len(proposals)
        size = count // self.probe
        left = self.context.evaluations_left()
        if size < 2 or (left is not None and left <= count):
            return Proposed(list(proposals), [])
        drawn = sorted(generator.permutation(count)[:size].tolist())
        guesses = self._values(self.objective, proposals, beams)[0]
        values, losses = self._values(self.context.objective, [proposals[at] for at in drawn], beams)
        trusted = (1 + spearman(guesses[drawn], values)) / 2
        kept = max(1, min(count, int((1 - trusted) * count / self.reduction)))
        best = guesses.argsort(stable=True)[:kept].tolist()
        names = list(losses)
        rows = zip(*(losses[name].tolist() for name in names), strict=True)
        scored = {
            proposals[at].text: dict(zip(names, row, strict=True))
            for at, row in zip(drawn, rows, strict=True)
        }
        return Proposed([proposals[at] for at in sorted({*drawn, *best})], [], scored)

    def _values(
        self, objective: Objective, proposals: Sequence[Proposal], beams: Sequence[Hypothesis]
    ) -> tuple[Float[Tensor, " proposals"], dict[str, Tensor]]:
        texts = [item.text for item in proposals]
        parents = [beams[item.parent].text for item in proposals]
        losses = objective.score(texts, batch_size=self.context.batch_size, parents=parents)
        return torch.as_tensor(objective.totals(losses)), losses

"""From proposals to hypotheses: what is known of a proposal before it is scored, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from promptfuse.objectives import Fluency, Objective
from promptfuse.search.hypothesis import Hypothesis, Proposal


def known_fluency(objective: Objective, proposals: Sequence[Proposal]) -> dict[str, Tensor]:
    """Losses that follow from the proposals' NLL, (proposals,) by term.

    A term that reads texts after a context has a model of its own for that, which is the primary or not.
    The primary's NLL of a text with one more token is known from its parent's distribution.

    Args:
        objective: of its terms those are known that ask the primary about the text as it stands.
        proposals: nothing is known if one has no NLL.
    """
    if any(item.nll is None for item in proposals):
        return {}
    primary = objective.primary
    predicted = 0 if primary.start_ids else 1
    sums = torch.tensor([item.nll or 0.0 for item in proposals])
    counts = torch.tensor([float(len(item.ids) - predicted) for item in proposals])
    return {
        name: sums * term.length_normalizer(counts)
        for name, term in objective.terms.items()
        if isinstance(term, Fluency) and term.lm is primary and not term.suffix
    }


def hypotheses(
    proposals: Sequence[Proposal], parents: Sequence[str], values: Tensor, losses: Mapping[str, Tensor]
) -> list[Hypothesis]:
    """Proposals that have been scored.

    Args:
        proposals: the texts.
        parents: the texts that they come from.
        values: (proposals,).
        losses: (proposals,) by term.
    """
    names, columns = list(losses), [found.tolist() for found in losses.values()]
    rows = zip(proposals, parents, values.tolist(), zip(*columns, strict=True), strict=True)
    return [
        Hypothesis(item.text, item.ids, item.nll, value, dict(zip(names, row, strict=True)), parent=parent)
        for item, parent, value, row in rows
    ]

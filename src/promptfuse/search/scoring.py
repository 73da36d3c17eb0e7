"""From proposals to hypotheses: what is known of a proposal before it is scored, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from promptfuse.objectives import Fluency, Objective
from promptfuse.search.hypothesis import Hypothesis, Proposal

KnownLosses = Mapping[str, Mapping[str, float]]
"""Losses by term of texts that have been scored."""


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


def score_proposals(
    objective: Objective,
    proposals: Sequence[Proposal],
    parents: Sequence[str],
    scored: KnownLosses,
    batch_size: int | None,
) -> dict[str, Tensor]:
    """Exact losses of proposals, (proposals,) by term.

    Args:
        objective: makes them.
        proposals: at least one.
        parents: the texts that they come from.
        scored: losses of texts that are known already.
        batch_size: the most rows in one forward pass.
    """
    fresh = [index for index, item in enumerate(proposals) if item.text not in scored]
    chosen = [proposals[index] for index in fresh]
    found = objective.score(
        [item.text for item in chosen],
        known=known_fluency(objective, chosen),
        batch_size=batch_size,
        parents=[parents[index] for index in fresh],
    )
    if len(fresh) == len(proposals):
        return found
    losses = {}
    for name, values in found.items():
        rows = [scored[item.text][name] if item.text in scored else 0.0 for item in proposals]
        losses[name] = torch.tensor(rows, dtype=values.dtype).index_copy(0, torch.tensor(fresh), values)
    return losses

"""Drafts: what the language model writes by itself, the yardstick of automatic weights.

The losses of terms have different units. What they have in common is a set of texts: how far good texts are
from usual ones, under each term, says what a change of its loss is worth. The candidates of one step cannot
tell, since they differ in one word. Drafts are whole texts, drawn from the language model after what its
fluency term reads; they depend on the language model alone, so every search with it has the same.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from contextvars import Context
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from promptfuse.models import CausalLM
from promptfuse.objectives import Objective
from promptfuse.search.constraints import Constraints
from promptfuse.search.hypothesis import Proposal
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.guidance import own_fluency
from promptfuse.search.scoring import known_fluency
from promptfuse.search.sentences import sentence_ending

DRAFTS = 64
"""Texts that are drawn."""

TOKENS = 20
"""The most tokens of one."""

SHARE = 0.7
"""What a term counts beside fluency, by scale; how well it suits four pairs: docs/research/weights.md."""

_KNOWN: WeakKeyDictionary[CausalLM, dict[Hashable, list[Proposal]]] = WeakKeyDictionary()
"""Drafts by language model; drawn once for all searches with it."""

_LOCK = Lock()


def automatic_weights(
    objective: Objective, prefix: str = "", names: Sequence[str] | None = None
) -> dict[str, float]:
    """Weights that put the terms of an objective on one scale, by term; the signs are those given.

    The scale of a term is how far the best of 64 drafts is below their median loss; where its weight is
    negative, how far the worst is above. The weight is 0.7 times the scale of the fluency that proposes the
    words, divided by the term's own; that fluency has weight 1. Without such a term it is 1 by the term's
    scale. A term that is the same for all drafts has weight 1.

    Args:
        objective: the terms, of whose weights only the signs matter; it is not changed.
        prefix: what every text begins with.
        names: the terms to weigh; all by default.

    Raises:
        ConfigError: if there is no language model.
        TextError: if no text can begin with the prefix.
    """
    # Outside of a scheduler, so that drafts and losses do not depend on what is in flight.
    return Context().run(_weights, objective, prefix, list(objective.terms if names is None else names))


def _weights(objective: Objective, prefix: str, names: Sequence[str]) -> dict[str, float]:
    """See `automatic_weights`."""
    found = [one for one in drafts(objective, prefix) if objective.fits(one.text)]
    texts, known = [one.text for one in found], known_fluency(objective, found)
    scales: dict[str, float | None] = {}
    own = [name for name, term in objective.terms.items() if term in own_fluency(objective)][:1]
    for name in {*names, *own} if texts else ():
        term = objective.terms[name]
        losses = known[name] if name in known else term.score(texts).cpu()
        scales[name] = spread(losses.double(), lower=term.weight > 0)
    unit = next((SHARE * scale for name in own if (scale := scales.get(name))), 1.0)
    sizes = {name: unit / scale if (scale := scales.get(name)) else 1.0 for name in names}
    sizes |= dict.fromkeys(set(own) & set(names), 1.0)
    return {name: math.copysign(size, objective.terms[name].weight) for name, size in sizes.items()}


def spread(losses: Tensor, lower: bool = True) -> float | None:
    """How far the best of losses is from their median; None if they are all alike.

    Args:
        losses: (texts,).
        lower: whether lower ones are better.
    """
    found = float((losses.quantile(0.5) - losses.min()) if lower else (losses.max() - losses.quantile(0.5)))
    return found if found > 1e-6 else None


def drafts(objective: Objective, prefix: str = "") -> list[Proposal]:
    """Distinct texts that a language model writes by itself, each to the end of a sentence or 20 tokens.

    Args:
        objective: its primary model writes, after the context that its fluency term reads.
        prefix: what every text begins with.

    Returns:
        At most 64 texts with their tokens and NLL. Those that the model would read as other tokens are left
        out, and those that a search without rules of its own would not take.

    Raises:
        TextError: if no text can begin with the prefix.
    """
    primary, prefix = objective.primary, prefix.strip()
    key = (primary.generation, prefix)
    with _LOCK:  # Searches that run side by side ask all at once.
        known = _KNOWN.setdefault(primary, {})
        if key not in known:
            known[key] = _drawn(SearchContext(objective, Constraints(), prefix, 1, 0))
        return known[key]


@torch.no_grad()
def _drawn(context: SearchContext) -> list[Proposal]:
    """See `drafts`."""
    primary, given = context.primary, list(context.prefix_ids)
    generator = torch.Generator().manual_seed(0)
    before = float(primary.content_nll(primary.encode([context.prefix]))[0]) if given else 0.0
    rows, nll = [list(given) for _ in range(DRAFTS)], [before] * DRAFTS
    alive = list(range(DRAFTS)) if primary.start_ids or given else []
    room = primary.max_length - len(primary.start_ids) - len(given)
    for step in range(min(TOKENS, room)):
        if not alive:
            break
        usable = context.allowed.clone()
        usable[list(primary.end_ids)] = step > 0  # No text ends before it has begun.
        chances = primary.next_log_probabilities([rows[index] for index in alive]).cpu()[:, : len(usable)]
        # Exponential noise makes the largest of p / noise a draw, which rounding hardly ever changes.
        noise = torch.empty(len(alive), len(usable)).exponential_(generator=generator)
        scores = (chances - noise.log()).masked_fill(~usable, -torch.inf)
        tokens = scores.argmax(1) if step else _first_tokens(context, scores)
        costs = -chances.gather(1, tokens[:, None])[:, 0]
        grown = []
        for index, token, cost in zip(alive, tokens.tolist(), costs.tolist(), strict=True):
            if token not in primary.end_ids:
                rows[index].append(token)
                nll[index] += cost
                grown.append(index)
        texts = primary.decode([rows[index] for index in grown])
        alive = [index for index, text in zip(grown, texts, strict=True) if sentence_ending(text) != "sure"]
    found = {
        text: Proposal(text, tuple(row), cost, -1)
        for text, row, cost in zip(context.decode(rows), rows, nll, strict=True)
        if text is not None and any(letter.isalnum() for letter in text)
    }
    return list(found.values())


def _first_tokens(context: SearchContext, scores: Float[Tensor, "rows vocabulary"]) -> Int[Tensor, " rows"]:
    """The best token of each row that begins a word, (rows,); the best of all if none of 64 does."""
    ranked = scores.topk(min(64, scores.shape[1])).indices
    tokens = sorted({token for row in ranked.tolist() for token in row})
    texts = context.primary.decode([[*context.prefix_ids, token] for token in tokens])
    begins = {
        token: context.leaves_prefix(text) and not text[:1].isspace()
        for token, text in zip(tokens, texts, strict=True)
    }
    return torch.tensor([next((one for one in row if begins[one]), row[0]) for row in ranked.tolist()])

"""Drafts: what the language model writes by itself, the yardstick of automatic weights.

The losses of terms have different units. What they have in common is a set of texts: how far good texts are
from usual ones, under each term, says what a change of its loss is worth. The candidates of one step cannot
tell, since they differ in one word. Drafts are whole texts, drawn from the language model after what its
fluency term reads; they depend on the language model alone, so every search with it has the same.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from contextvars import Context
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from promptfuse.models import CausalLM
from promptfuse.objectives import Fluency, Objective, Term
from promptfuse.search.constraints import Constraints
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.guidance import own_fluency
from promptfuse.search.sentences import sentence_ending

DRAFTS = 64
"""Texts that are drawn."""

TOKENS = 20
"""The most tokens of one."""

TAIL = 8
"""Drafts whose mean loss is what a good text has: the best eighth."""

_KNOWN: WeakKeyDictionary[CausalLM, dict[Hashable, list[str]]] = WeakKeyDictionary()
"""Drafts by language model; drawn once for all searches with it."""

_SCALES: WeakKeyDictionary[CausalLM, dict[Hashable, float]] = WeakKeyDictionary()
"""Scales of the language model's own fluency, which are the same for all searches."""

_LOCK = Lock()


def automatic_weights(
    objective: Objective, prefix: str = "", names: Sequence[str] | None = None
) -> dict[str, float]:
    """Weights that put the terms of an objective on one scale, by term; the signs are those given.

    The scale of a term is how far the mean loss of the best eighth of 64 drafts is below their median loss;
    where its weight is negative, how far that of the worst eighth is above. The weight is the scale of the
    fluency that proposes the words, divided by the term's own: that fluency has weight 1. Without such a
    term it is 1 by the term's scale. A term that is the same for all drafts has weight 1.

    Args:
        objective: the terms, of whose weights only the signs matter; it is not changed.
        prefix: what every text begins with.
        names: the terms to weigh; all by default.

    Raises:
        ConfigError: if there is no language model.
        TextError: if no text can begin with the prefix.
    """
    # Outside of a scheduler, so that drafts and losses do not depend on what is in flight.
    return Context().run(_weights, objective, prefix, objective.terms if names is None else names)


def _weights(objective: Objective, prefix: str, names: Iterable[str]) -> dict[str, float]:
    texts = [text for text in drafts(objective, prefix) if objective.fits(text)]
    own = own_fluency(objective)
    unit = (_scale(own[0], texts, objective.primary) if own else None) or 1.0
    found = {}
    for name in names:
        term = objective.terms[name]
        scale = _scale(term, texts, objective.primary)
        found[name] = math.copysign(1.0 if scale is None else unit / scale, term.weight)
    return found


def _scale(term: Term, texts: list[str], primary: CausalLM) -> float | None:
    """What the loss of a term is measured in; None if all drafts have the same."""
    if not texts:
        return None
    key = None
    if isinstance(term, Fluency) and term.lm is primary:
        key = (primary.generation, term.length_exponent, term.suffix, term.weight > 0, *texts[:TAIL])
        if key in (known := _SCALES.setdefault(primary, {})):
            return known[key]
    found = spread(term.score(texts).double().cpu(), term.weight > 0)
    if key is not None and found is not None:
        known[key] = found
    return found


def spread(losses: Tensor, lower: bool = True) -> float | None:
    """How far the best eighth of losses is, on average, from their median; None if they are all alike.

    Args:
        losses: (texts,).
        lower: whether lower ones are better.
    """
    ordered = (losses if lower else -losses).sort().values
    tail = max(1, round(len(ordered) * TAIL / DRAFTS))
    found = float(ordered.quantile(0.5) - ordered[:tail].mean())
    return found if found > 1e-6 else None


def drafts(objective: Objective, prefix: str = "") -> list[str]:
    """Distinct texts that a language model writes by itself, each to the end of a sentence or 20 tokens.

    Args:
        objective: what has the language model, with the context that it reads first.
        prefix: what every text begins with.

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
def _drawn(context: SearchContext) -> list[str]:
    """See `drafts`."""
    primary = context.primary
    generator = torch.Generator().manual_seed(0)
    rows = [list(context.prefix_ids) for _ in range(DRAFTS)]
    alive = list(range(DRAFTS)) if primary.start_ids or context.prefix_ids else []
    ends = list(primary.end_ids)
    room = primary.max_length - len(primary.start_ids) - len(context.prefix_ids)
    for step in range(min(TOKENS, room)):
        if not alive:
            break
        usable = (context.allowed if step else context.first).clone()
        usable[ends] = step > 0  # No text ends before it has begun.
        chances = primary.next_log_probabilities([rows[index] for index in alive]).cpu()
        # Exponential noise makes the largest of p / noise a draw, which rounding hardly ever changes.
        noise = torch.empty(len(alive), len(usable)).exponential_(generator=generator)
        scores = (chances[:, : len(usable)] - noise.log()).masked_fill(~usable, -torch.inf)
        drawn = [
            (index, token) for index, token in zip(alive, scores.argmax(1).tolist(), strict=True)
            if token not in primary.end_ids
        ]  # fmt: skip
        for index, token in drawn:
            rows[index].append(token)
        texts = primary.decode([rows[index] for index, _ in drawn])
        alive = [
            index for (index, _), text in zip(drawn, texts, strict=True) if sentence_ending(text) != "sure"
        ]
    found = primary.decode(rows)
    return [text for text in dict.fromkeys(found) if any(letter.isalnum() for letter in text)]

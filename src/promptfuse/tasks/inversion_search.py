"""The search that turns an embedding back into a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError
from promptfuse.models import CausalLM
from promptfuse.objectives import Fluency, Objective, Term
from promptfuse.objectives.lexicon import similarity_terms
from promptfuse.search import AutoDAN, BeamSearch, Chain, Constraints, Method, Revise, Search, Stopping

Style = Literal["prose", "prompt", "words"]
"""What the text is to look like."""

WEIGHT = 60.0
"""Weight of the similarity beside a fluency of weight 1."""

PHOTO_WEIGHT = 20.0
"""The same for a photo, which no text's embedding comes near to: more would cost the text its grammar."""

BEAMS = 6
"""Texts that are kept at each step."""

WORD_PRIOR = 1.2
"""Nats for a word that is one standard deviation nearer to the embedding than the mean; see ``WordPrior``."""

DRAFT = 0.52
"""The share of the budget that the draft may use; edits have the rest."""

EDITS = 48
"""Edited texts that the encoder reads in a step."""

SLACK = 2
"""Tokens by which edits may make the text longer than its draft."""


@dataclass(frozen=True)
class StyleRules:
    """What makes texts of a style.

    Attributes:
        constraints: rules that every text obeys.
    """

    constraints: Constraints


LEADING_BLANK = r"^\s"
"""A text does not begin with a blank, although the first word of a sentence that goes on would."""

STYLES: dict[str, StyleRules] = {
    "prose": StyleRules(Constraints(banned_patterns=(LEADING_BLANK,))),
    # Phrases of at most six words, with a comma between them and no other marks.
    "prompt": StyleRules(
        Constraints(
            banned_patterns=(LEADING_BLANK, r"[^\w ,'-]", r"(^|,|[-' ]) ?,", r",[^ ]", r"([^ ,]+ ){6}[^ ,]")
        )
    ),
    "words": StyleRules(Constraints(banned_patterns=(LEADING_BLANK, r"[^A-Za-z ]"), no_repeat_ngram=1)),
}
"""The styles by name."""


def style_rules(style: str) -> StyleRules:
    """The rules of a style.

    Raises:
        ConfigError: if there is no such style.
    """
    if style not in STYLES:
        raise ConfigError(f"there is no style {style!r:.60}; {nearest(str(style), STYLES)}")
    return STYLES[style]


def inversion_objective(lm: CausalLM, term: Term, *, lm_prefix: str = "") -> Objective:
    """What texts are judged by: how likely they are, and how near their embedding is.

    Args:
        lm: proposes words and judges fluency.
        term: the loss of the embedding; its weight should be ``WEIGHT`` or ``PHOTO_WEIGHT``.
        lm_prefix: text that the language model alone reads before every text.
    """
    return Objective(Fluency(lm, context=lm_prefix), term)


def inversion_search(objective: Objective, *, budget: int, length: int, style: str, seed: int) -> Search:
    """The search for one text: a draft by the words that the embedding asks for, then edits by what it lacks.

    An encoder of which only the answers are known has no lexicon: the language model alone proposes for it.

    Args:
        objective: see ``inversion_objective``.
        budget: the most texts that the encoder may read.
        length: the most tokens of the text.
        style: ``prose``, ``prompt`` or ``words``.
        seed: random seed, for methods that sample.
    """
    known = bool(similarity_terms(objective.terms))
    draft = int(budget * DRAFT) if known else budget
    beams = max(1, min(BEAMS, draft // (4 * length)))
    candidates = max(1, draft // (length * beams))
    method: Method = AutoDAN(candidates, transport="none", word_prior=WORD_PRIOR if known else 0.0)
    steps = length
    if known:
        drafted = candidates * (1 + beams * (length - 1))
        edits = max(1, min(EDITS, (budget - drafted) // 2))
        rounds = max(1, -(-(budget - drafted) // edits))
        method = Chain(
            method,
            Revise(edits, word_prior=WORD_PRIOR, length=length + SLACK),
            steps=(length, rounds),
        )
        steps += rounds
    return Search(
        objective,
        method,
        BeamSearch(beams),
        stopping=Stopping(steps=steps, patience=steps, evaluations=budget),
        constraints=style_rules(style).constraints,
        complete=False,
        seed=seed,
    )

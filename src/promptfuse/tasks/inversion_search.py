"""The search that turns an embedding back into a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError
from promptfuse.models import CausalLM
from promptfuse.objectives import Fluency, Objective, Term
from promptfuse.search import AutoDAN, BeamSearch, Constraints, Search, Stopping

Style = Literal["prose", "prompt", "words"]
"""What the text is to look like."""

WEIGHT = 40.0
"""Weight of the similarity beside a fluency of weight 1."""

BEAMS = 6
"""Texts that are kept at each step."""

SUBTOKENS = 2
"""The longest word, in the encoder's tokens, whose tokens have gradients of their own."""


@dataclass(frozen=True)
class StyleRules:
    """What makes texts of a style.

    Attributes:
        constraints: rules that every text obeys.
    """

    constraints: Constraints


STYLES: dict[str, StyleRules] = {
    "prose": StyleRules(Constraints()),
    # Phrases of at most six words, with a comma between them and no other marks.
    "prompt": StyleRules(
        Constraints(banned_patterns=(r"[^\w ,'-]", r"(^|,|[-' ]) ?,", r",[^ ]", r"([^ ,]+ ){6}[^ ,]"))
    ),
    "words": StyleRules(Constraints(banned_patterns=(r"[^A-Za-z ]",), no_repeat_ngram=1)),
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
        term: the loss of the embedding; its weight should be ``WEIGHT``.
        lm_prefix: text that the language model alone reads before every text.
    """
    return Objective(Fluency(lm, context=lm_prefix), term)


def inversion_search(objective: Objective, *, budget: int, length: int, style: str, seed: int) -> Search:
    """The search for one text.

    Args:
        objective: see ``inversion_objective``.
        budget: the most texts that the encoder may read.
        length: the most tokens of the text.
        style: ``prose``, ``prompt`` or ``words``.
        seed: random seed, for methods that sample.
    """
    beams = max(1, min(BEAMS, budget // (4 * length)))
    # Each step also reads every beam for its gradients.
    candidates = max(1, budget // (length * beams) - SUBTOKENS)
    return Search(
        objective,
        AutoDAN(candidates=candidates, transport="lexical", subtokens=SUBTOKENS),
        BeamSearch(beams),
        stopping=Stopping(steps=length, patience=length, evaluations=budget),
        constraints=style_rules(style).constraints,
        complete=False,
        seed=seed,
    )

"""Polish: one word at a time replaced, inserted or deleted, improvements only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from promptfuse.errors import ConfigError
from promptfuse.search.hypothesis import Hypothesis, Proposal
from promptfuse.search.methods.base import Method, at_least, require
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.guidance import fluency_share
from promptfuse.search.methods.proposer import EditProposer, Proposed
from promptfuse.search.methods.registry import methods


@methods.register("Polish")
@dataclass(frozen=True)
class Polish(Method):
    """Replace, insert or delete one word at a time, keeping improvements only.

    New words are those that the language model finds likely after what stands before them (unlikely, if
    fluency has a negative weight). A text that no candidate improves is tried again with further words.

    Attributes:
        candidates: texts scored exactly per beam and step, dealt out over all places.
        moves: any of ``replace``, ``insert`` and ``delete``.
        init: a text to begin with; needed where there is neither a prefix nor a method before it.
    """

    candidates: int = 256
    moves: tuple[str, ...] = ("replace", "insert", "delete")
    init: str | None = None

    def __post_init__(self) -> None:
        at_least("candidates", self.candidates)
        object.__setattr__(self, "moves", tuple(self.moves))
        known = ("replace", "insert", "delete")
        require(
            bool(self.moves) and set(self.moves) <= set(known),
            f"moves: {self.moves} are not known moves; choose from: {', '.join(known)}",
        )

    def proposer(self, context: SearchContext) -> PolishProposer:
        """What makes each step's proposals."""
        return PolishProposer(context, self)


WORD = re.compile(r"\s*[^\W_]+(?:['-][^\W_]+)*")
"""A word with the blanks before it; marks after it stay where they are."""


@dataclass(frozen=True)
class Place:
    """Where a word may go: ``before`` + word + ``after``.

    Attributes:
        before: what the language model proposes words for.
        after: what follows.
        blank: whether the word brings a blank with it.
    """

    before: str
    after: str
    blank: bool


class PolishProposer(EditProposer):
    """Tries the language model's words in all places."""

    keeps_parents = True
    only_improvements: ClassVar[bool] = True

    def __init__(self, context: SearchContext, method: Polish) -> None:
        super().__init__(context)
        self.method = method
        # How often a text was tried: each time with words that were not tried before.
        self.rounds: dict[str, int] = {}
        self.words = torch.tensor(sorted(context.whole_words), dtype=torch.long)

    def initial_texts(self) -> list[str]:
        """The texts to begin with, prefix included."""
        if self.method.init is not None:
            return [self.after_prefix(self.method.init)]
        if self.context.prefix:
            return [self.context.prefix]
        raise ConfigError("Polish has no text to begin with; give init, a prefix, or chain it after a method")

    def propose(self, beams: Sequence[Hypothesis]) -> Proposed:
        """Proposals for the next texts."""
        found: list[Proposal] = []
        seen = {beam.text for beam in beams}
        for number, beam in enumerate(beams):
            texts = [text for text in dict.fromkeys(self._edits(beam.text)) if text not in seen]
            kept = 0
            for text, ids in zip(texts, self.encode(texts), strict=True):
                if ids is not None and kept < self.method.candidates:
                    seen.add(text)
                    kept += 1
                    found.append(Proposal(text, ids, None, number))
        return Proposed(found, [])

    def _edits(self, text: str) -> list[str]:
        """Edited texts: deletions in the first round, then words by promise, one place after another."""
        turn = self.rounds.get(text, 0)
        self.rounds[text] = turn + 1
        first = len(self.context.prefix)
        cores = [match.span() for match in WORD.finditer(text, first)]
        edits = []
        if "delete" in self.method.moves and turn == 0:
            edits = [self._joined(text[:start], text[stop:]) for start, stop in cores]
            edits = [edit for edit in edits if edit.strip()]
        places = self._places(text, cores, first)
        if not places:
            return edits
        share = max(1, -(-(self.method.candidates - len(edits)) // len(places)))
        return edits + self._filled(places, text, share, turn)

    def _places(self, text: str, cores: Sequence[tuple[int, int]], first: int) -> list[Place]:
        places = []
        if "replace" in self.method.moves:
            places = [Place(text[:start], text[stop:], start > 0) for start, stop in cores]
        if "insert" in self.method.moves:
            ends = ([first] if first else []) + [stop for _, stop in cores]
            places += [Place(text[:end], text[end:], True) for end in dict.fromkeys(ends)]
        return [place for place in places if place.before or self.primary.start_ids]

    def _filled(self, places: Sequence[Place], text: str, share: int, turn: int) -> list[str]:
        """Texts with the ``share`` best words of this turn in each place, the best of all places first."""
        if not len(self.words):
            return []
        contexts = list(dict.fromkeys(place.before for place in places))
        rows = self.primary.plain_ids(contexts)
        log_probabilities = self.primary.next_log_probabilities(rows).cpu()[:, self.words]
        if float(fluency_share(self.context.objective, torch.ones(1))) < 0:
            log_probabilities = -log_probabilities  # Likely words would only make the objective worse.
        # Rounds go down the ranking; some words will break a rule, so twice as many are tried.
        begin, end = 2 * share * turn, min(2 * share * (turn + 1), len(self.words))
        if begin >= end:
            return []
        ranked = log_probabilities.topk(end, dim=1).indices[:, begin:end]
        where = {context: index for index, context in enumerate(contexts)}
        wanted = [f" {phrase}" for phrase in self.constraints.missing(text)] if turn == 0 else []
        spelled = self.context.whole_words
        columns = []
        for place in places:
            tokens = self.words[ranked[where[place.before]]].tolist()
            words = wanted + [spelled[token] for token in tokens]
            columns.append(
                [f"{place.before}{word if place.blank else word.lstrip()}{place.after}" for word in words]
            )
        return [column[rank] for rank in range(len(columns[0])) for column in columns]

    def _joined(self, before: str, after: str) -> str:
        """A text without one of its words; it begins without a blank."""
        return f"{before}{after}" if before else after.lstrip()

    def state_dict(self) -> dict[str, Any]:
        """How often each text was tried."""
        return {"rounds": self.rounds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.rounds = dict(state["rounds"])

"""Edit whole texts by what they lack: words that the target's features ask for, where they read well."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.errors import ConfigError
from promptfuse.objectives.lexicon import similarity_terms
from promptfuse.search.hypothesis import Hypothesis, Proposal
from promptfuse.search.methods.base import Method, at_least, require
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.guidance import fluency_share
from promptfuse.search.methods.proposer import EditProposer, Proposed
from promptfuse.search.methods.registry import methods
from promptfuse.search.methods.word_prior import WordPrior
from promptfuse.text.segments import encode_words

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
"""A word; marks around it stay where they are."""

_PULL = 5.0
"""How much more than the target's direction the residual counts when words are chosen."""
_LM = 0.5
"""The share of the language model's opinion that counts: it has read only what stands before the word."""
_EXPECTED = 3.0
"""Nats that an inserted word may cost and still leave a text as fluent as it was."""
_SAME_WORD, _SAME_PLACE = 4, 6
"""The most edits of a step with one word, and of one place."""


@methods.register("Revise")
@dataclass(frozen=True)
class Revise(Method):
    """Insert, replace, delete and move words so that a text comes nearer to what it is compared with.

    The residual of a text, the target's features less their share that the text has already, says which
    words it lacks: those whose own features point the same way (as gradients of the cosine would, carried to
    whole words). Where a word may go is the language model's choice. The most promising edits are scored
    by the terms of similarity, the best of these by all terms. Improvements alone are kept, and a text that
    no edit improves is tried again with the next ones.

    Attributes:
        candidates: texts scored in a step by the terms of similarity, over all beams.
        finalists: how many of these are scored by all terms: a language model is often the slowest of them.
        moves: any of ``replace``, ``insert``, ``delete`` and ``move``.
        words: how many words of the lexicon are tried in a step.
        word_prior: as in ``AutoDAN``: how much the target, as a whole, decides which words these are.
        length: the most tokens of a text; None for any number.
        parents: the most beams that are edited in a step; the others wait.
        init: a text to begin with; needed where there is neither a prefix nor a method before it.
    """

    candidates: int = 48
    finalists: int = 8
    moves: tuple[str, ...] = ("replace", "insert", "delete", "move")
    words: int = 100
    word_prior: float = 1.2
    length: int | None = None
    parents: int = 1
    init: str | None = None

    def __post_init__(self) -> None:
        at_least("candidates", self.candidates)
        at_least("finalists", self.finalists)
        at_least("words", self.words)
        at_least("parents", self.parents)
        if self.length is not None:
            at_least("length", self.length)
        object.__setattr__(self, "moves", tuple(self.moves))
        known = ("replace", "insert", "delete", "move")
        require(
            bool(self.moves) and set(self.moves) <= set(known),
            f"moves: {self.moves} are not known moves; choose from: {', '.join(known)}",
        )
        require(0 < self.word_prior <= 100, f"word_prior: {self.word_prior} is out of range; give 0.1 to 100")

    def proposer(self, context: SearchContext) -> ReviseProposer:
        """What makes each step's proposals."""
        return ReviseProposer(context, self)


class Edit(NamedTuple):
    """An edited text.

    Attributes:
        gain: by how much the objective is expected to fall.
        text: the text.
        word: the number of the new word in the lexicon; -1 for none.
        place: the character where the edit is.
    """

    gain: float
    text: str
    word: int
    place: int


class ReviseProposer(EditProposer):
    """Ranks edits of the beams by their expected gain."""

    keeps_parents = True
    only_improvements: ClassVar[bool] = True

    def __init__(self, context: SearchContext, method: Revise) -> None:
        super().__init__(context)
        self.method = method
        self.prior = WordPrior(context.objective, self.primary, method.word_prior)
        self.terms = similarity_terms(context.objective.terms)
        self.vocabulary = next(iter(self.prior.lexicons.values())).words
        self.number = {word: index for index, word in enumerate(self.vocabulary)}
        rows = encode_words(self.primary.tokenizer, [f" {word}" for word in self.vocabulary])
        self.first_tokens = torch.tensor([row[0] if row else -1 for row in rows])
        self.tried: dict[str, None] = {}
        # Of the last finalists by term, so that the next step need not read them again.
        self.features: dict[str, dict[str, Tensor]] = {name: {} for name in self.terms}

    def initial_texts(self) -> list[str]:
        """The texts to begin with, prefix included."""
        if self.method.init is not None:
            return [self.after_prefix(self.method.init)]
        if self.context.prefix:
            return [self.context.prefix]
        raise ConfigError("Revise has no text to begin with; give init, a prefix, or chain it after a method")

    def propose(self, beams: Sequence[Hypothesis]) -> Proposed:
        """The best edits of the best beams that were not proposed before."""
        found: list[Proposal] = []
        self.tried |= {beam.text: None for beam in beams}
        chosen = sorted(range(len(beams)), key=lambda number: beams[number].value)[: self.method.parents]
        for turn, number in enumerate(chosen):
            share = (self.method.candidates - len(found)) // (len(chosen) - turn)
            found += self._proposals(beams[number], number, share)
        return self._finalists(found, beams)

    def _finalists(self, found: list[Proposal], beams: Sequence[Hypothesis]) -> Proposed:
        """Those of the proposals that the terms of similarity like best, with these terms' losses."""
        if not found:
            return Proposed([], [])
        texts, parents = [item.text for item in found], [beams[item.parent].text for item in found]
        losses: dict[str, Tensor] = {}
        outputs: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, term in self.terms.items():
                outputs[name] = term.outputs_of(texts, parents)
                losses[name] = term.loss_from_outputs(outputs[name]).cpu()
        total = torch.stack([self.terms[name].weight * loss for name, loss in losses.items()]).sum(0)
        best = sorted(total.argsort(stable=True)[: self.method.finalists].tolist())
        scored = {}
        for name, loss in losses.items():
            held = {
                beam.text: self.features[name][beam.text]
                for beam in beams
                if beam.text in self.features[name]
            }
            self.features[name] = held | {texts[index]: outputs[name][index] for index in best}
            scored[name] = {texts[index]: float(loss[index]) for index in best}
        return Proposed([found[index] for index in best], [], scored)

    def _proposals(self, beam: Hypothesis, number: int, count: int) -> list[Proposal]:
        """The ``count`` best edits of a beam that keep the rules."""
        kept: list[Proposal] = []
        words: dict[int, int] = {}
        places: dict[int, int] = {}
        edits = sorted(self._edits(beam.text), key=lambda edit: -edit.gain)
        for first in range(0, len(edits), 4 * count):
            part = [edit for edit in edits[first : first + 4 * count] if edit.text not in self.tried]
            for edit, ids in zip(part, self.encode([edit.text for edit in part]), strict=True):
                if len(kept) == count:
                    return kept
                if ids is None or edit.text in self.tried or self._too_long(edit.text, ids):
                    continue
                if edit.word >= 0:
                    if words.get(edit.word, 0) == _SAME_WORD or places.get(edit.place, 0) == _SAME_PLACE:
                        continue
                    words[edit.word] = words.get(edit.word, 0) + 1
                    places[edit.place] = places.get(edit.place, 0) + 1
                self.tried[edit.text] = None
                kept.append(Proposal(edit.text, ids, None, number))
        return kept

    def _too_long(self, text: str, ids: Sequence[int]) -> bool:
        """Whether a text has more tokens than it may have, or than a model reads."""
        more = self.method.length is not None and len(ids) > self.method.length
        return more or not self.context.objective.fits(text)

    def _lacking(self, text: str) -> tuple[Float[Tensor, " words"], Float[Tensor, " words"]]:
        """Of each word, how much the text lacks it, and how far the objective falls for the word alone."""
        lacks = torch.zeros_like(self.prior.likelihoods)
        falls = torch.zeros_like(lacks)
        for name, term in self.terms.items():
            if text not in self.features[name]:
                with torch.no_grad():
                    self.features[name][text] = term.outputs_of([text], [text])[0]
            own = self.features[name][text].cpu().to(lacks.dtype)
            target = term.features.cpu().to(lacks.dtype)
            residual = target - (own @ target) * own
            features = self.prior.lexicons[name].features
            found = features @ residual
            falls += term.weight * found
            lacks += (1.0 if term.weight >= 0 else -1.0) * found / (features @ target).std().clamp_min(1e-9)
        return lacks, falls

    def _edits(self, text: str) -> Iterator[Edit]:
        """All edits of a text, in no order."""
        first = len(self.context.prefix)
        spans = [match.span() for match in WORD.finditer(text, first)]
        if not spans:
            return
        lacks, falls = self._lacking(text)
        present = {text[start:stop].lower() for start, stop in spans}
        wanted = self.prior.log_shares + self.prior.likelihoods + _PULL * self.method.word_prior * lacks
        # A word may come twice in a text, but what is there already is not what it lacks.
        here = [self.number[word] for word in present if word in self.number]
        wanted[here] = -torch.inf
        wanted[self.first_tokens < 0] = -torch.inf
        tried = wanted.topk(min(self.method.words, len(wanted))).indices
        fall = falls[tried] / len(spans)
        nat = float(fluency_share(self.context.objective, torch.tensor(float(len(spans)))))
        chances = self._chances(text, [start for start, _ in spans])
        own = [self.number.get(text[start:stop].lower(), -1) for start, stop in spans]
        for place, (start, stop) in enumerate(spans):
            without = float(falls[own[place]]) / len(spans) if own[place] >= 0 else 0.0
            before = chances[place] if chances is not None else None
            likely = before[self.first_tokens[tried]] if before is not None else torch.zeros(len(tried))
            if "replace" in self.method.moves:
                expected = self._own_chance(before, text[start:stop])
                gains = fall - without + nat * _LM * (likely - expected)
                yield from self._spelled(text, start, stop, tried, gains)
            if "insert" in self.method.moves:
                gains = fall + nat * _LM * (likely + _EXPECTED) - nat * _EXPECTED
                yield from self._spelled(text, start, start, tried, gains)
            if "delete" in self.method.moves and len(spans) > 1:
                yield Edit(-without, self._joined(text[:start], text[stop:]), -1, start)
            if "move" in self.method.moves and place + 1 < len(spans):
                begin, end = spans[place + 1]
                swapped = text[begin:end] + text[stop:begin] + text[start:stop]
                yield Edit(-0.5 * nat, text[:start] + swapped + text[end:], -1, start)

    def _own_chance(self, before: Float[Tensor, " vocabulary"] | None, word: str) -> float:
        """The log-probability of the word that is there, of its first token."""
        if before is None:
            return 0.0
        (row,) = encode_words(self.primary.tokenizer, [f" {word}"])
        return -12.0 if not row else max(float(before[row[0]]), -12.0)

    def _chances(self, text: str, starts: Sequence[int]) -> Float[Tensor, "{len(starts)} vocabulary"] | None:
        """Log-probabilities of the token at each place, after what stands before it."""
        rows = self.primary.plain_ids([text[:start].rstrip() for start in starts])
        if not all(rows) and not self.primary.start_ids:
            return None
        return self.primary.next_log_probabilities(rows).cpu()

    def _spelled(
        self, text: str, start: int, stop: int, tried: Tensor, gains: Float[Tensor, " tried"]
    ) -> Iterator[Edit]:
        """Edits that put each of the words tried at a place: in capitals where the word there begins so."""
        there = text[start:stop]
        capital = there[:1].isupper() and there[1:].islower()
        for index, gain in zip(tried.tolist(), gains.tolist(), strict=True):
            word = self.vocabulary[index]
            word = word.capitalize() if capital else word
            yield Edit(gain, f"{text[:start]}{word}{'' if stop > start else ' '}{text[stop:]}", index, start)

    def _joined(self, before: str, after: str) -> str:
        """A text without one of its words; it begins without a blank."""
        return f"{before.rstrip()}{after}" if before.strip() else after.lstrip()

    def state_dict(self) -> dict[str, Any]:
        """Which texts were proposed before."""
        return {"tried": list(self.tried)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.tried = dict.fromkeys(state["tried"])

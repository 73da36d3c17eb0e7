"""What every method has in common: proposals for the next texts, learning from them, and resuming."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from promptfuse.adapters.words import word_starts
from promptfuse.errors import ConfigError, TextError
from promptfuse.models import CausalLM
from promptfuse.objectives import Objective
from promptfuse.objectives.checks import check_unicode
from promptfuse.search.characters import bad_character
from promptfuse.search.constraints import Constraints
from promptfuse.search.hypothesis import Hypothesis, Proposal
from promptfuse.text.borders import glues, needs_blank, starts_word
from promptfuse.text.segments import encode_words, special_ids

_ALLOWED: WeakKeyDictionary[CausalLM, dict[Constraints, Tensor]] = WeakKeyDictionary()
"""Made once for all searches with a model: looking at each token takes longer than a step."""

_FIRST: WeakKeyDictionary[CausalLM, dict[tuple[str, Constraints], Tensor]] = WeakKeyDictionary()
"""See `SearchContext.first`; made once for all searches with a model."""


def _allowed_tokens(primary: CausalLM, constraints: Constraints) -> Tensor:
    """See `SearchContext.allowed`."""
    tokenizer, rows = primary.tokenizer, len(primary.embedding_table)
    special = special_ids(tokenizer)
    count = min(len(tokenizer), rows)
    texts = tokenizer.batch_decode([[index] for index in range(count)])
    allowed = [
        index not in special and text != "" and constraints.allows_token(text)
        for index, text in enumerate(texts)
    ]
    return torch.tensor(allowed + [False] * (rows - count))


def prefix_tokens(primary: CausalLM, prefix: str, constraints: Constraints) -> tuple[int, ...]:
    """The tokens of a prefix under a language model.

    Raises:
        TextError: if no text can begin with the prefix.
    """
    if not prefix:
        return ()
    check_unicode(prefix, "prefix")
    (ids,) = primary.plain_ids([prefix])
    if (reason := constraints.broken(prefix, len(ids))) is not None:
        raise TextError(f"prefix {shortened(prefix)} breaks the constraints: {reason}; {remedy_for(prefix)}")
    if special := set(ids) & special_ids(primary.tokenizer):
        shown = primary.tokenizer.decode([min(special)])
        raise TextError(
            f"prefix {shortened(prefix)}: {shown} is a special token of {primary.name}; leave it out"
        )
    (text,) = primary.decode([ids])
    if text != prefix:
        raise TextError(
            f"prefix {shortened(prefix)}: {primary.name} reads it as {shortened(text)}; "
            "use characters that it knows"
        )
    return tuple(ids)


def shortened(text: str, most: int = 100) -> str:
    """A text in a message, in quotes; of a long one the beginning."""
    return repr(text if len(text) <= most else f"{text[: most - 3]}...")


def remedy_for(text: str) -> str:
    """What to do about a text that the user gave and the constraints refuse."""
    letter = bad_character(text, ascii_only=False)
    if letter is not None and letter in "\n\r\t":
        return (
            "texts that are found have none and begin with it, so use one line; lines that only the "
            "language model is to read are the context of its Fluency term"
        )
    return "use other characters" if letter is not None else "use another text or other rules"


@dataclass(frozen=True)
class SearchContext:
    """What a method is given to work with.

    Attributes:
        objective: what texts are judged by.
        constraints: rules for proposals.
        prefix: what every text begins with.
        width: how many texts the strategy goes on from.
        seed: of whatever is drawn; a method in a chain has its own.
        readable: whether every model reads a text back; others are not gone on from.
        glue: whether the first token may go on with the prefix's last word.
    """

    objective: Objective
    constraints: Constraints
    prefix: str
    width: int
    seed: int | tuple[int, ...]
    readable: Callable[[str], bool] = lambda text: True
    glue: bool = False

    @property
    def primary(self) -> CausalLM:
        """The language model whose tokens are searched."""
        return self.objective.primary

    def generator(self) -> np.random.Generator:
        """A fresh generator from the seed."""
        return np.random.default_rng(self.seed)

    @cached_property
    def allowed(self) -> Tensor:
        """(vocabulary,), false at special tokens, unused rows and what the constraints forbid."""
        plain = self.primary.plain
        made = _ALLOWED.setdefault(plain, {})
        if self.constraints not in made:
            made[self.constraints] = _allowed_tokens(plain, self.constraints)
        return made[self.constraints]

    @cached_property
    def first(self) -> Tensor:
        """(vocabulary,), those of ``allowed`` that may stand right behind the prefix, or at the beginning."""
        if self.glue or not (self.prefix or self.primary.context):
            return self.allowed
        made = _FIRST.setdefault(self.primary, {})
        key = (self.prefix, self.constraints)
        if key not in made:
            usable: list[int] = self.allowed.nonzero()[:, 0].tolist()
            texts = self.primary.decode([[*self.prefix_ids, token] for token in usable])
            kept = [token for token, text in zip(usable, texts, strict=True) if self.leaves_prefix(text)]
            made[key] = torch.zeros_like(self.allowed)
            made[key][kept] = True
        return made[key]

    def leaves_prefix(self, text: str) -> bool:
        """Whether a text goes on behind the prefix with a word of its own, or is the prefix alone.

        Without a prefix, whether it begins with one behind what the language model reads first.
        """
        before = self.prefix or (self.primary.joined("") if self.primary.context else "")
        return self.glue or starts_word(before, text[len(self.prefix) :])

    @cached_property
    def whole_words(self) -> dict[int, str]:
        """The allowed tokens that are words as they stand, blank included: {id: word}."""
        starts = word_starts(self.primary.tokenizer)
        found = {index: word for index, word in sorted(starts.items()) if index < len(self.allowed)}
        spelled = encode_words(self.primary.tokenizer, list(found.values()))
        return {
            index: word
            for (index, word), ids in zip(found.items(), spelled, strict=True)
            if ids == (index,) and bool(self.allowed[index])
        }

    @cached_property
    def prefix_ids(self) -> tuple[int, ...]:
        """The prefix's tokens under the primary.

        Raises:
            TextError: if no text can begin with the prefix.
        """
        return prefix_tokens(self.primary, self.prefix, self.constraints)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str | None]:
        """The texts of rows of tokens; None where one does not read back to the same or breaks a rule."""
        if not rows:
            return []
        rows = [list(row) for row in rows]
        texts = self.primary.decode(rows)
        again = self.primary.plain_ids(texts)
        return [
            text if ids == row and self.constraints.allows(text, len(row)) else None
            for row, text, ids in zip(rows, texts, again, strict=True)
        ]

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...] | None]:
        """The tokens of texts; None where they do not give the text back or it breaks a rule."""
        if not texts:
            return []
        rows = self.primary.plain_ids(texts)
        decoded = self.primary.decode(rows)
        return [
            tuple(row) if text == again and row and self.constraints.allows(text, len(row)) else None
            for text, row, again in zip(texts, rows, decoded, strict=True)
        ]


class Proposed(NamedTuple):
    """What a method proposes in a step.

    Attributes:
        texts: to be scored; those of one beam in the order of their promise.
        ended: numbers of the beams that the language model ends as they stand.
    """

    texts: list[Proposal]
    ended: list[int]


class Proposer(ABC):
    """Makes each step's proposals and learns from their true losses.

    Attributes:
        appends: whether texts grow until they end; else every text is a whole one.
        keeps_parents: whether a step may keep the texts that it started from.
        only_improvements: whether only texts better than the one they come from are gone on from.
        stateful: whether a text may lead to other texts when it is gone on from again.
    """

    appends: ClassVar[bool] = False
    keeps_parents: ClassVar[bool] = False
    only_improvements: ClassVar[bool] = False
    stateful: ClassVar[bool] = False

    def __init__(self, setting: SearchContext) -> None:
        self.setting = setting
        self.primary = setting.primary
        self.constraints = setting.constraints
        self.allowed = setting.allowed

    @abstractmethod
    def start(self, given: Sequence[Hypothesis]) -> list[Hypothesis]:
        """Where the method begins.

        Args:
            given: the best texts of the method before; empty for the first.
        """

    @abstractmethod
    def propose(self, beams: Sequence[Hypothesis]) -> Proposed:
        """Proposals for the next texts."""

    def has_room(self, beams: Sequence[Hypothesis]) -> bool:
        """Whether the language model has room for what the method does to texts."""
        del beams
        return True

    def observe(self, proposals: Sequence[Proposal], losses: dict[str, Tensor]) -> None:
        """Learn from the true losses of proposals, (proposals,) by term."""
        del proposals, losses

    @property
    def gains(self) -> dict[str, float]:
        """What the proposer has learned, for the record."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed search needs to propose the same texts; JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo ``state_dict``."""
        del state


class EditProposer(Proposer):
    """A method that changes whole texts behind the prefix."""

    def start(self, given: Sequence[Hypothesis]) -> list[Hypothesis]:
        """See ``Proposer.start``: the texts given, or those of the settings, behind the prefix."""
        if given:
            return list(given)
        found = [self.hypothesis(text) for text in self.initial_texts()]
        return list({item.text: item for item in found}.values())

    @abstractmethod
    def initial_texts(self) -> list[str]:
        """The texts to begin with when there are none yet, prefix included."""

    def hypothesis(self, text: str) -> Hypothesis:
        """A text to begin with, not scored yet.

        Raises:
            TextError: if it cannot be read back, breaks the constraints, or runs into the prefix.
        """
        check_unicode(text, "text to begin with")
        (row,) = self.primary.plain_ids([text])
        if (reason := self.constraints.broken(text, len(row))) is not None:
            raise TextError(
                f"text to begin with {shortened(text)} breaks the constraints: {reason}; {remedy_for(text)}"
            )
        if special := set(row) & special_ids(self.primary.tokenizer):
            shown = self.primary.tokenizer.decode([min(special)])
            raise TextError(
                f"text to begin with {shortened(text)}: {shown} is a special token of {self.primary.name}; "
                "leave it out"
            )
        (ids,) = self.setting.encode([text])
        if ids is None:
            (again,) = self.primary.decode([row])
            raise TextError(
                f"text to begin with {shortened(text)}: {self.primary.name} reads it as {shortened(again)}; "
                "begin with that, or with characters that it knows"
            )
        if self.fixed(ids) is None:
            raise TextError(
                f"text to begin with {shortened(text)}: runs into the prefix {self.setting.prefix!r}; "
                "leave a blank"
            )
        return Hypothesis(text, ids, None)

    def fixed(self, ids: Sequence[int]) -> int | None:
        """How many tokens of a text are the prefix's; None if it does not begin with it."""
        prefix = self.setting.prefix_ids
        return len(prefix) if tuple(ids[: len(prefix)]) == prefix else None

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str | None]:
        """As ``SearchContext.decode``; None also where a text goes on with the prefix's last word."""
        return [
            text if text is not None and self.leaves_prefix(text) else None
            for text in self.setting.decode(rows)
        ]

    def leaves_prefix(self, text: str) -> bool:
        """Whether the prefix's last word stands in a text as it is."""
        end = len(self.setting.prefix)
        return end == 0 or self.setting.glue or not glues(self.setting.prefix, text[end:])

    def behind_prefix(self, text: str) -> str:
        """A text put behind the prefix."""
        prefix = self.setting.prefix
        if not prefix:  # Behind some contexts the first token brings the blank along.
            return text.lstrip() if self.primary.pending else text
        return f"{prefix}{' ' if needs_blank(prefix) else ''}{text.strip()}"

    def random_texts(self, length: int, count: int, generator: np.random.Generator) -> list[str]:
        """Texts of random whole words behind the prefix, each of ``length`` tokens.

        Raises:
            ConfigError: if the constraints leave hardly any such text.
        """
        words = np.array(sorted(self.setting.whole_words))
        if not len(words):
            raise ConfigError("no whole word is left to begin with; loosen the constraints or give init")
        texts: list[str] = []
        for _ in range(1000):
            ids = generator.choice(words, size=length, replace=len(words) < length)
            (text,) = self.setting.decode([[*self.setting.prefix_ids, *ids.tolist()]])
            if text is not None and text not in texts:
                texts.append(text)
            if len(texts) == count:
                return texts
        if texts:
            return texts
        raise ConfigError(f"no text of {length} random words keeps the constraints; loosen them or give init")


def with_nll(item: Hypothesis, primary: CausalLM) -> Hypothesis:
    """A hypothesis whose summed NLL is known."""
    if item.nll is not None:
        return item
    with torch.no_grad():
        total, _ = primary.content_nll(primary.encode([item.text]))
    return replace(item, nll=float(total))

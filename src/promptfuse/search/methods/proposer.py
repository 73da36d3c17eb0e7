"""What carries a method out: proposals for the next texts, learning from them, and resuming."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.errors import ConfigError, TextError
from promptfuse.models import CausalLM
from promptfuse.objectives.checks import check_unicode
from promptfuse.search.hypothesis import Hypothesis, Proposal
from promptfuse.search.methods.context import SearchContext, remedy_for, shortened
from promptfuse.text.borders import glues, needs_blank
from promptfuse.text.segments import special_ids


class Proposed(NamedTuple):
    """What a method proposes in a step.

    Attributes:
        texts: to be scored; those of one beam in the order of their promise.
        ended: numbers of the beams that the language model ends as they stand.
        scored: exact losses by term of those texts that the method has scored already.
    """

    texts: list[Proposal]
    ended: list[int]
    scored: Mapping[str, Mapping[str, float]] = {}


class Proposer(ABC):
    """Makes each step's proposals and learns from their true losses.

    Attributes:
        appends: whether texts grow until they end; else every text is a whole one.
        keeps_parents: whether a step may keep the texts that it started from.
        only_improvements: whether only texts better than the one they come from are kept.
        stateful: whether a text may lead to other texts when it is proposed from again.
    """

    appends: ClassVar[bool] = False
    keeps_parents: bool = False
    only_improvements: ClassVar[bool] = False
    stateful: ClassVar[bool] = False

    def __init__(self, context: SearchContext) -> None:
        self.context = context
        self.primary = context.primary
        self.constraints = context.constraints
        self.allowed = context.allowed

    @abstractmethod
    def start(self, given: Sequence[Hypothesis]) -> list[Hypothesis]:
        """The texts that the method begins with.

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

    def observe(self, proposals: Sequence[Proposal], losses: dict[str, Float[Tensor, " proposals"]]) -> None:
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
        """Restore what ``state_dict`` gave."""
        del state


class Sampling(Proposer):
    """A proposer that draws from ``generator``, whose state is saved."""

    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        self.generator = context.generator()

    def state_dict(self) -> dict[str, Any]:
        """The generator's state."""
        return {"generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.generator.bit_generator.state = state["generator"]


class EditProposer(Proposer):
    """A method that changes whole texts after the prefix."""

    def start(self, given: Sequence[Hypothesis]) -> list[Hypothesis]:
        """The texts given, or those of the settings, after the prefix."""
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
            TextError: if it cannot be read back, breaks the constraints, or joins the prefix.
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
        (ids,) = self.context.encode([text])
        if ids is None:
            (again,) = self.primary.decode([row])
            raise TextError(
                f"text to begin with {shortened(text)}: {self.primary.name} reads it as {shortened(again)}; "
                "begin with that, or with characters that it knows"
            )
        if self.fixed(ids) is None:
            raise TextError(
                f"text to begin with {shortened(text)}: joins the prefix {self.context.prefix!r}; add a space"
            )
        return Hypothesis(text, ids, None)

    def fixed(self, ids: Sequence[int]) -> int | None:
        """How many tokens of a text are the prefix's; None if it does not begin with it."""
        prefix = self.context.prefix_ids
        return len(prefix) if tuple(ids[: len(prefix)]) == prefix else None

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str | None]:
        """As ``SearchContext.decode``; None also where a text does not keep the prefix as it stands."""
        return [
            text if text is not None and self.leaves_prefix(text) else None
            for text in self.context.decode(rows)
        ]

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...] | None]:
        """The tokens of texts; None where a text may not be proposed.

        It may not if it is not read back to the same, breaks a rule, or does not begin with the prefix as it
        stands, in characters, in tokens and as whole words.

        Args:
            texts: whole texts, prefix included.
        """
        return [
            ids if ids is not None and self.fixed(ids) is not None and self.leaves_prefix(text) else None
            for text, ids in zip(texts, self.context.encode(texts), strict=True)
        ]

    def leaves_prefix(self, text: str) -> bool:
        """Whether a text begins with the prefix and does not continue its last word."""
        prefix = self.context.prefix
        return text.startswith(prefix) and (self.context.glue or not glues(prefix, text[len(prefix) :]))

    def after_prefix(self, text: str) -> str:
        """A text put after the prefix."""
        prefix = self.context.prefix
        if not prefix:  # Behind some contexts the first token brings the blank along.
            return text.lstrip() if self.primary.pending else text
        return f"{prefix}{' ' if needs_blank(prefix) else ''}{text.strip()}"

    def random_texts(self, length: int, count: int, generator: np.random.Generator) -> list[str]:
        """Texts of random whole words after the prefix, each of ``length`` tokens.

        Raises:
            ConfigError: if the constraints leave hardly any such text.
        """
        words = np.array(sorted(self.context.whole_words))
        if not len(words):
            raise ConfigError("no word can begin the text; loosen the constraints or give init")
        texts: list[str] = []
        for _ in range(1000):
            ids = generator.choice(words, size=length, replace=len(words) < length)
            (text,) = self.context.decode([[*self.context.prefix_ids, *ids.tolist()]])
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

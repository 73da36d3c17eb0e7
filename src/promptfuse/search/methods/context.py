"""What a method is given to work with: the objective, the rules, the prefix, and tokens that may be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from promptfuse.adapters.words import word_starts
from promptfuse.errors import TextError
from promptfuse.models import CausalLM
from promptfuse.objectives import Objective
from promptfuse.objectives.checks import check_unicode
from promptfuse.search.characters import bad_character
from promptfuse.search.constraints import Constraints
from promptfuse.text.borders import begins_text, starts_word
from promptfuse.text.segments import encode_words, special_ids

_ALLOWED: WeakKeyDictionary[CausalLM, dict[Constraints, Tensor]] = WeakKeyDictionary()
"""Made once for all searches with a model: looking at each token takes longer than a step."""

_FIRST: WeakKeyDictionary[CausalLM, dict[tuple[str, Constraints], Tensor]] = WeakKeyDictionary()
"""See `SearchContext.first`; made once for all searches with a model."""


def _allowed_tokens(primary: CausalLM, constraints: Constraints) -> Bool[Tensor, " vocabulary"]:
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
            "texts begin with it and have no line breaks, so use one line; lines that only the "
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
        width: how many texts a step starts from.
        seed: of whatever is drawn; a method in a chain has its own.
        readable: whether every model reads a text back; other texts are not kept.
        glue: whether the first token may continue the prefix's last word.
        batch_size: the most rows in one forward pass; None for as many as fit.
        evaluations_left: how many more texts the search may score; None for any number.
    """

    objective: Objective
    constraints: Constraints
    prefix: str
    width: int
    seed: int | tuple[int, ...]
    readable: Callable[[str], bool] = lambda text: True
    glue: bool = False
    batch_size: int | None = None
    evaluations_left: Callable[[], int | None] = lambda: None

    @property
    def primary(self) -> CausalLM:
        """The language model whose tokens are searched."""
        return self.objective.primary

    def generator(self) -> np.random.Generator:
        """A fresh generator from the seed."""
        return np.random.default_rng(self.seed)

    @cached_property
    def allowed(self) -> Bool[Tensor, " vocabulary"]:
        """(vocabulary,), false at special tokens, unused rows and what the constraints forbid."""
        plain = self.primary.plain
        made = _ALLOWED.setdefault(plain, {})
        if self.constraints not in made:
            made[self.constraints] = _allowed_tokens(plain, self.constraints)
        return made[self.constraints]

    @cached_property
    def first(self) -> Bool[Tensor, " vocabulary"]:
        """(vocabulary,), those of ``allowed`` that may follow the prefix, or begin a text."""
        if self.glue:
            return self.allowed
        made = _FIRST.setdefault(self.primary, {})
        key = (self.prefix, self.constraints)
        if key not in made:
            usable: list[int] = self.allowed.nonzero()[:, 0].tolist()
            texts = self.primary.decode([[*self.prefix_ids, token] for token in usable])
            kept = [
                token
                for token, text in zip(usable, texts, strict=True)
                if self.leaves_prefix(text) and (self.prefix or begins_text(text))
            ]
            made[key] = torch.zeros_like(self.allowed)
            made[key][kept] = True
        return made[key]

    def leaves_prefix(self, text: str) -> bool:
        """Whether a text continues the prefix with a new word, or is the prefix alone.

        Without a prefix, whether it begins with a new word after what the language model reads first.
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

"""How a language model continues a text by itself, and whether that is what was wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from promptfuse.models import CausalLM

MORE_TOKENS = 8
"""Tokens that are shown after the longest target."""

LEAST_TOKENS = 16
"""Tokens that are shown at least."""


@dataclass(frozen=True)
class Continuation:
    """How a language model continues a text by itself: the likeliest token at each place.

    Attributes:
        text: what it says, to its end or to some tokens more than the longest target has.
        targets: what it was to say.
        matched: the target that it begins with, token by token; None if there is none.
    """

    text: str
    targets: tuple[str, ...]
    matched: str | None

    @property
    def matches(self) -> bool:
        """Whether it begins with a target."""
        return self.matched is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "text": self.text,
            "targets": list(self.targets),
            "matched": self.matched,
            "matches": self.matches,
        }


class GreedyDecoding:
    """Greedy decoding after a row, and what it has in common with targets.

    Args:
        lm: the language model.
        row: token ids of what stands before, begin-of-text included.
        targets: the strings that are wanted, each with its token ids after the row.
    """

    def __init__(
        self, lm: CausalLM, row: Sequence[int], targets: Sequence[tuple[str, Sequence[int]]]
    ) -> None:
        self.lm, self.row = lm, list(row)
        self.wanted = {target: {target, self._said(ids)} for target, ids in targets}
        self.longest = max((len(ids) for _, ids in targets), default=0)

    def matched(self) -> str | None:
        """The target that the model goes on with; None as soon as it says something else."""
        for ids in self._tokens():
            said = self._said(ids)
            if (found := self._equal(said)) is not None:
                return found
            whole = said.rstrip("\ufffd")  # A character may take several tokens.
            if not any(text.startswith(whole) for texts in self.wanted.values() for text in texts):
                return None
        return None

    def continuation(self) -> Continuation:
        """What the model says, some tokens more than the longest target has."""
        most = max(LEAST_TOKENS, self.longest + MORE_TOKENS)
        said, matched = "", None
        for ids in self._tokens():
            said = self._said(ids)
            matched = matched if matched is not None else self._equal(said)
            if len(ids) >= most:
                break
        return Continuation(said, tuple(self.wanted), matched)

    def _equal(self, said: str) -> str | None:
        return next((target for target, texts in self.wanted.items() if said in texts), None)

    @torch.no_grad()
    def _tokens(self) -> Iterator[list[int]]:
        """The tokens said so far, one more each time, until the model ends the text or has no room."""
        lm, found = self.lm, list[int]()
        while len(self.row) + len(found) <= lm.max_length:
            # By the book, as `Term.exact` does: the row alone, and nothing remembered.
            batch = lm.collate([[*self.row, *found]], [(0, 0)])
            logits = lm.module(input_ids=batch.ids, attention_mask=batch.mask).logits[0, -1]
            token = int(logits.argmax())
            if token in lm.end_ids:
                return
            found.append(token)
            yield found

    def _said(self, ids: Sequence[int]) -> str:
        """Token ids after the row as a string."""
        before, whole = self.lm.decode([self.row, [*self.row, *ids]])
        return whole[len(before) :] if whole.startswith(before) else self.lm.decode([ids])[0]

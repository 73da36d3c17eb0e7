"""What a search has seen of a term corrects what the gradient expects of the next words.

A photo, or a label, is the same in every step, and so is much of what the linear estimate gets wrong about
a word: a term that likes "dog" better than its gradient says will do so in the next step too. The true
changes that are left over, behind the shrunk estimate, are regressed on the other model's embeddings of the
words that were tried, and the regression speaks for all words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from promptfuse.adapters import Transport

MOST_OBSERVATIONS = 512
"""What lies further back is forgotten, so that a step takes no longer as a search goes on."""


class _Siblings(NamedTuple):
    """Candidates of one beam: their tokens, and their estimated and true losses."""

    tokens: list[int]
    estimated: list[float]
    true: list[float]


class Surrogate:
    """A ridge regression of a term's leftover changes on word embeddings.

    All quantities are centred among siblings, since only the order of siblings matters. In the form of
    kernel ridge regression: the direction is ``X' (X X' + ridge s I)^-1 r`` for centred embeddings X,
    leftovers r and the mean squared norm s of the rows of X (Hastie, Tibshirani & Friedman, "The Elements of
    Statistical Learning", section 5.8.2).

    Args:
        transport: knows the words and how the other model embeds them.
        ridge: the penalty, in units of the mean squared norm.
    """

    def __init__(self, transport: Transport, ridge: float) -> None:
        self.transport = transport
        self.ridge = ridge
        self.seen: list[_Siblings] = []
        self._features: list[Tensor] = []

    def observe(self, tokens: Sequence[int], estimated: Tensor, true: Tensor) -> None:
        """Add the candidates of one beam.

        Args:
            tokens: the primary's tokens that were appended, all with an estimate.
            estimated: (tokens,) their estimated losses.
            true: (tokens,) their true losses.
        """
        self._add(_Siblings(list(tokens), estimated.tolist(), true.tolist()))
        count = sum(len(group.tokens) for group in self.seen)
        while count > MOST_OBSERVATIONS and len(self.seen) > 1:
            count -= len(self.seen.pop(0).tokens)
            self._features.pop(0)

    def _add(self, group: _Siblings) -> None:
        embeddings = self.transport.embeddings_of(group.tokens).float()
        self.seen.append(group)
        self._features.append(embeddings - embeddings.mean(0))

    def direction(self, gain: float) -> Tensor | None:
        """The regression's coefficients, (d,); None while nothing has been seen.

        Args:
            gain: the factor on the estimates, behind which changes are left over.
        """
        if not self.seen:
            return None
        left = torch.cat([self._left_over(group, gain) for group in self.seen])
        features = torch.cat(self._features)
        kernel = features @ features.T
        scale = float(kernel.diagonal().mean())
        if scale == 0:
            return None
        kernel.diagonal().add_(self.ridge * scale)
        solved = torch.cholesky_solve(left.to(kernel)[:, None], torch.linalg.cholesky(kernel))
        return (features.T @ solved)[:, 0]

    @staticmethod
    def _left_over(group: _Siblings, gain: float) -> Tensor:
        left = torch.tensor(group.true) - gain * torch.tensor(group.estimated)
        return left - left.mean()

    def correction(self, gain: float) -> Tensor | None:
        """What to add to every token's shrunk estimate, (rows of the primary's table,); see `direction`."""
        direction = self.direction(gain)
        return None if direction is None else self.transport.along(direction)

    def state_dict(self) -> list[Any]:
        """What was seen, as JSON values."""
        return [list(group) for group in self.seen]

    def load_state_dict(self, state: Sequence[Any]) -> None:
        """Undo ``state_dict``."""
        self.seen, self._features = [], []
        for tokens, estimated, true in state:
            self._add(_Siblings(tokens, estimated, true))

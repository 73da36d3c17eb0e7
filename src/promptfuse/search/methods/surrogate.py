"""What a search has seen of a term corrects what the gradient expects of the next words.

A photo, or a label, is the same in every step, and so is much of what the linear estimate gets wrong about
a word: a term that likes "dog" better than its gradient says will do so in the next step too. The true
changes that remain after the shrunk estimate are regressed on the other model's embeddings of the
words that were tried, and the regression speaks for all words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.adapters import Transport

MOST_OBSERVATIONS = 512
"""Older ones are forgotten, so that steps take no longer in a long search."""

MOST_SIBLINGS = 64
"""Of one beam's candidates the most promising count, so that steps before are not crowded out."""


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
        self._features: list[Float[Tensor, "tokens d"]] = []

    def observe(
        self, tokens: Sequence[int], estimated: Float[Tensor, " tokens"], true: Float[Tensor, " tokens"]
    ) -> None:
        """Add the candidates of one beam.

        Args:
            tokens: the primary's tokens that were appended, all with an estimate, the most promising first.
            estimated: (tokens,) their estimated losses.
            true: (tokens,) their true losses.
        """
        few = slice(MOST_SIBLINGS)
        self._add(_Siblings(list(tokens[few]), estimated[few].tolist(), true[few].tolist()))
        count = sum(len(group.tokens) for group in self.seen)
        while count > MOST_OBSERVATIONS and len(self.seen) > 1:
            count -= len(self.seen.pop(0).tokens)
            self._features.pop(0)

    def _add(self, group: _Siblings) -> None:
        # In double precision, since a small ridge leaves the kernel near singular.
        embeddings = self.transport.embeddings_of(group.tokens).double().cpu()
        self.seen.append(group)
        self._features.append(embeddings - embeddings.mean(0))

    def direction(self, gain: float) -> Float[Tensor, " d"] | None:
        """The regression's coefficients, (d,); None while nothing has been seen that tells words apart.

        Args:
            gain: the factor on the estimates, which are subtracted from the changes.
        """
        if not self.seen:
            return None
        left = torch.cat([self._left_over(group, gain) for group in self.seen])
        features = torch.cat(self._features)
        kernel = features @ features.T
        scale = float(kernel.diagonal().mean())
        kernel.diagonal().add_(self.ridge * scale)
        factor, failed = torch.linalg.cholesky_ex(kernel)
        if scale == 0 or int(failed) or not bool(torch.isfinite(left).all()):
            return None
        return (features.T @ torch.cholesky_solve(left[:, None], factor))[:, 0].float()

    @staticmethod
    def _left_over(group: _Siblings, gain: float) -> Float[Tensor, " tokens"]:
        wide = torch.float64
        left = torch.tensor(group.true, dtype=wide) - gain * torch.tensor(group.estimated, dtype=wide)
        return left - left.mean()

    def correction(self, gain: float) -> Float[Tensor, " vocabulary"] | None:
        """What to add to every token's shrunk estimate, (rows of the primary's table,); see `direction`."""
        direction = self.direction(gain)
        return None if direction is None else self.transport.along(direction)

    def state_dict(self) -> list[Any]:
        """What was seen, as JSON values."""
        return [list(group) for group in self.seen]

    def load_state_dict(self, state: Sequence[Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.seen, self._features = [], []
        for tokens, estimated, true in state:
            self._add(_Siblings(tokens, estimated, true))

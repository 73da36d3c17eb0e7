"""Random search: changes within a ball, keeping the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from promptfuse.search.hypothesis import Hypothesis, Proposal
from promptfuse.search.methods.base import Method, at_least, one_of, require
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.proposer import EditProposer, Proposed, Sampling
from promptfuse.search.methods.registry import methods


@methods.register("RandomSearch")
@dataclass(frozen=True)
class RandomSearch(Method):
    """Random changes within a ball around a text, keeping the best: gradient-free search.

    In the ``l0`` ball, 1 to ``radius`` tokens are replaced by others drawn uniformly. In the ``l2`` ball,
    a random vector is added to the primary's embeddings of all tokens together, and each becomes the
    nearest token. There the radius is a root mean square over the tokens, in units of the mean distance
    between a token's embedding and the nearest other one.

    Attributes:
        ball: ``l0`` or ``l2``.
        radius: its size; for the ``l2`` ball 3 to 4 changes a few tokens of a text.
        candidates: texts scored exactly per beam and step.
        length: tokens of the text that is changed; they begin as words drawn at random.
        init: a text to begin with in their place.
    """

    ball: Literal["l0", "l2"] = "l0"
    radius: float = 2.0
    candidates: int = 256
    length: int = 8
    init: str | None = None

    def __post_init__(self) -> None:
        one_of("ball", self.ball, ("l0", "l2"))
        require(0 < self.radius < 1e6, f"radius: {self.radius} is out of range; give a number above 0")
        require(
            self.ball == "l2" or self.radius >= 1,
            f"radius: {self.radius} must be at least 1 for the l0 ball",
        )
        at_least("candidates", self.candidates)
        at_least("length", self.length)

    def proposer(self, context: SearchContext) -> RandomSearchProposer:
        """What makes each step's proposals."""
        return RandomSearchProposer(context, self)


class RandomSearchProposer(Sampling, EditProposer):
    """Draws texts near the beams."""

    keeps_parents = True

    def __init__(self, context: SearchContext, method: RandomSearch) -> None:
        super().__init__(context)
        self.method = method
        self.tokens = self.allowed.nonzero()[:, 0].numpy()

    def initial_texts(self) -> list[str]:
        """The texts to begin with, prefix included."""
        if self.method.init is not None:
            return [self.after_prefix(self.method.init)]
        return self.random_texts(self.method.length, 1, self.generator)

    def propose(self, beams: Sequence[Hypothesis]) -> Proposed:
        """Proposals for the next texts."""
        found: list[Proposal] = []
        seen = {beam.text for beam in beams}
        draw = self._swapped if self.method.ball == "l0" else self._moved
        for number, beam in enumerate(beams):
            # Some draws will break a rule; make enough to fill the number all the same.
            rows = draw(beam.ids, 2 * self.method.candidates + 16)
            kept = 0
            for row, text in zip(rows, self.decode(rows), strict=True):
                if text is not None and text not in seen and kept < self.method.candidates:
                    seen.add(text)
                    kept += 1
                    found.append(Proposal(text, tuple(row), None, number))
        return Proposed(found, [])

    def _swapped(self, ids: Sequence[int], count: int) -> list[list[int]]:
        """Rows with 1 to ``radius`` tokens replaced by others drawn uniformly."""
        first = self.fixed(ids) or 0
        free = len(ids) - first
        most = min(int(self.method.radius), free)
        rows = []
        for _ in range(count if free else 0):
            places = self.generator.permutation(free)[: self.generator.integers(1, most + 1)]
            row = list(ids)
            for place, token in zip(places, self.generator.choice(self.tokens, len(places)), strict=True):
                row[first + int(place)] = int(token)
            rows.append(row)
        return rows

    def _moved(self, ids: Sequence[int], count: int) -> list[list[int]]:
        """Rows of the tokens nearest to embeddings that a random vector moved."""
        first = self.fixed(ids) or 0
        free = len(ids) - first
        if not free:
            return []
        table = self.primary.embedding_table
        candidates = table[torch.from_numpy(self.tokens).to(table.device)].float()
        here = table[torch.tensor(ids[first:], device=table.device)].float()
        length = self.method.radius * self.spacing * len(here) ** 0.5
        squares = candidates.square().sum(1)
        rows = []
        for _ in range(count):
            noise = self.generator.standard_normal(tuple(here.shape))
            # Uniform in the ball: the direction of a Gaussian, the length by the volume inside.
            noise *= length * self.generator.random() ** (1 / noise.size) / np.linalg.norm(noise)
            moved = here + torch.from_numpy(noise).to(here)
            nearest = (squares - 2 * moved @ candidates.T).argmin(1)
            rows.append([*ids[:first], *self.tokens[nearest.cpu().numpy()].tolist()])
        return rows

    @cached_property
    def spacing(self) -> float:
        """The mean distance from a token's embedding to the nearest other one, over some tokens."""
        table = self.primary.embedding_table
        candidates = table[torch.from_numpy(self.tokens).to(table.device)].float()
        some = torch.arange(0, len(candidates), max(1, len(candidates) // 256))
        distances = torch.cdist(candidates[some], candidates)
        distances[torch.arange(len(some)), some] = torch.inf
        return float(distances.amin(1).mean())

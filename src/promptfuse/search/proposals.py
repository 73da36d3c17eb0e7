"""Proposers: from the beams to the texts that are scored next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from promptfuse.errors import TextError
from promptfuse.models import CausalLM
from promptfuse.objectives import Objective
from promptfuse.search.constraints import Constraints
from promptfuse.search.guidance import Guidance
from promptfuse.search.hypothesis import Hypothesis, Proposal
from promptfuse.search.methods import AutoDAN, Method, RandomAppend

SENTENCE_ENDS = (".", "!", "?")


class Proposer(ABC):
    """Makes each step's proposals and learns from their true losses."""

    def __init__(self, objective: Objective, constraints: Constraints) -> None:
        self.objective = objective
        self.primary: CausalLM = objective.primary
        self.constraints = constraints
        self.allowed = self._allowed_tokens()

    @abstractmethod
    def propose(self, beams: Sequence[Hypothesis]) -> tuple[list[Proposal], list[int]]:
        """Proposals for the next texts, and the beams that the language model ends as they stand."""

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

    def _allowed_tokens(self) -> Tensor:
        """(vocabulary,), false at special tokens, unused rows and what the constraints forbid."""
        tokenizer = self.primary.tokenizer
        rows = len(self.primary.embedding_table)
        allowed = torch.zeros(rows, dtype=torch.bool)
        special = set(tokenizer.all_special_ids)
        count = min(len(tokenizer), rows)
        for index, text in enumerate(tokenizer.batch_decode([[index] for index in range(count)])):
            allowed[index] = index not in special and text != "" and self.constraints.allows_token(text)
        return allowed

    def _append(
        self,
        beams: Sequence[Hypothesis],
        ranked: Sequence[Sequence[int]],
        log_probabilities: Tensor,
        count: int,
        estimates: dict[str, Tensor],
    ) -> list[Proposal]:
        """Turn ranked tokens into proposals, the first ``count`` of each beam that keep the rules.

        A token survives only if the primary reads the new text back to the same ids: otherwise the
        text that the other models see is not the one whose probability was computed.
        """
        pairs = [(number, token) for number, tokens in enumerate(ranked) for token in tokens]
        if not pairs:
            return []
        rows = [[*beams[number].ids, token] for number, token in pairs]
        texts = self.primary.tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False)
        again = self.primary.plain_ids(texts)
        kept: list[Proposal] = []
        taken = [0] * len(beams)
        seen: set[str] = set()
        for (number, token), row, text, ids in zip(pairs, rows, texts, again, strict=True):
            if taken[number] == count or ids != row or text in seen or not self.constraints.allows(text):
                continue
            seen.add(text)
            taken[number] += 1
            values = {name: float(losses[number, token]) for name, losses in estimates.items()}
            kept.append(
                Proposal(
                    text=text,
                    ids=tuple(row),
                    nll=beams[number].nll - float(log_probabilities[number, token]),
                    parent=number,
                    estimates={name: value for name, value in values.items() if value == value},
                )
            )
        return kept


class GuidedProposer(Proposer):
    """AutoDAN: tokens ranked by log-probability and transported gradients."""

    def __init__(self, objective: Objective, constraints: Constraints, method: AutoDAN) -> None:
        super().__init__(objective, constraints)
        self.method = method
        self.guidance = Guidance(objective, self.primary, method)

    def propose(self, beams: Sequence[Hypothesis]) -> tuple[list[Proposal], list[int]]:
        """See ``Proposer.propose``."""
        log_probabilities = self.primary.next_log_probabilities([beam.ids for beam in beams]).cpu()
        # The models of the other terms cannot judge an empty text, so the first word is the primary's.
        begun = all(beam.text.strip() for beam in beams)
        try:
            texts = [beam.text for beam in beams]
            estimates = self.guidance.estimate(texts, log_probabilities) if begun else {}
        except TextError:  # No room for the placeholder: what still fits is proposed without a gradient.
            estimates = {}
        lengths = [len(beam.ids) for beam in beams]
        scores = self.guidance.scores(self.objective, estimates, log_probabilities, lengths)
        scores[:, : len(self.allowed)].masked_fill_(~self.allowed, -torch.inf)
        count = self.method.candidates
        # Some proposals will break a rule; rank enough to fill the number all the same.
        ranked = scores.topk(min(scores.shape[1], 2 * count + 16), dim=1)
        tokens = [
            [token for token, score in zip(row, values, strict=True) if score > -torch.inf]
            for row, values in zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
        ]
        ended = [
            number
            for number, beam in enumerate(beams)
            if beam.text.strip() and self._ends(log_probabilities[number], count)
        ]
        return self._append(beams, tokens, log_probabilities, count, estimates), ended

    def _ends(self, log_probabilities: Tensor, count: int) -> bool:
        """Whether an end of text is among the ``count`` most likely next tokens."""
        best = max((float(log_probabilities[index]) for index in self.primary.end_ids), default=float("-inf"))
        return int((log_probabilities > best).sum()) < min(count, 4)

    def observe(self, proposals: Sequence[Proposal], losses: dict[str, Tensor]) -> None:
        """See ``Proposer.observe``."""
        self.guidance.observe(proposals, losses)

    @property
    def gains(self) -> dict[str, float]:
        """The guidance's gain by term."""
        return {name: gain.value for name, gain in self.guidance.gains.items()}

    def state_dict(self) -> dict[str, Any]:
        """The sums behind the gains."""
        return {name: [gain.xy, gain.xx, gain.count] for name, gain in self.guidance.gains.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo ``state_dict``."""
        for name, gain in self.guidance.gains.items():
            gain.xy, gain.xx, gain.count = state[name]


class RandomProposer(Proposer):
    """Tokens drawn uniformly from the allowed ones."""

    def __init__(
        self, objective: Objective, constraints: Constraints, method: RandomAppend, seed: int
    ) -> None:
        super().__init__(objective, constraints)
        self.method = method
        self.generator = np.random.default_rng(seed)

    def propose(self, beams: Sequence[Hypothesis]) -> tuple[list[Proposal], list[int]]:
        """See ``Proposer.propose``."""
        log_probabilities = self.primary.next_log_probabilities([beam.ids for beam in beams]).cpu()
        usable = self.allowed.nonzero()[:, 0].numpy()
        count = self.method.candidates
        draw = min(len(usable), 2 * count + 16)
        tokens = [self.generator.choice(usable, size=draw, replace=False).tolist() for _ in beams]
        # Full stops are among the tokens drawn so rarely that no text would ever end.
        stops = [ids[0] for ids in self.primary.plain_ids(SENTENCE_ENDS) if len(ids) == 1]
        tokens = [
            stops[:1] + row if beam.text.strip() else row for row, beam in zip(tokens, beams, strict=True)
        ]
        return self._append(beams, tokens, log_probabilities, count, {}), []

    def state_dict(self) -> dict[str, Any]:
        """The generator's state."""
        return {"generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo ``state_dict``."""
        self.generator.bit_generator.state = state["generator"]


def make_proposer(objective: Objective, method: Method, constraints: Constraints, seed: int) -> Proposer:
    """The proposer for a method's settings."""
    if isinstance(method, RandomAppend):
        return RandomProposer(objective, constraints, method, seed)
    return GuidedProposer(objective, constraints, method)

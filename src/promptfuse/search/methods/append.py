"""What methods that append have in common: a text grows by a token in each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from promptfuse.errors import ConfigError
from promptfuse.search.hypothesis import Hypothesis, Proposal
from promptfuse.search.methods.proposer import Proposer, with_nll
from promptfuse.search.readback import appended


class AppendProposer(Proposer):
    """A method whose texts grow by a token in each step."""

    appends: ClassVar[bool] = True

    def start(self, given: Sequence[Hypothesis]) -> list[Hypothesis]:
        """The texts given, else the prefix."""
        if given:
            return [with_nll(item, self.primary) for item in given]
        if self.context.prefix_ids:
            return [with_nll(Hypothesis(self.context.prefix, self.context.prefix_ids, None), self.primary)]
        if not self.primary.start_ids:
            raise ConfigError(f"{self.primary.name} has no begin-of-text token; give a prefix to begin with")
        return [Hypothesis("", (), 0.0)]

    def has_room(self, beams: Sequence[Hypothesis]) -> bool:
        """Whether the model takes one more token after each beam."""
        longest = max((len(beam.ids) for beam in beams), default=0)
        return len(self.primary.start_ids) + longest < self.primary.max_length

    def usable(self, beams: Sequence[Hypothesis]) -> Bool[Tensor, "{len(beams)} vocabulary"]:
        """(beams, vocabulary), false at tokens that cannot follow a beam."""
        prefix = self.context.prefix_ids
        return torch.stack([self.context.first if beam.ids == prefix else self.allowed for beam in beams])

    def append(
        self,
        beams: Sequence[Hypothesis],
        ranked: Sequence[Sequence[int]],
        log_probabilities: Float[Tensor, "beams vocabulary"],
        count: int,
        estimates: dict[str, Float[Tensor, "beams vocabulary"]],
    ) -> list[Proposal]:
        """Turn ranked tokens into proposals, the first ``count`` of each beam that keep the rules.

        A token survives only if the primary reads the new text back to the same ids: otherwise the
        text that the other models see is not the one whose probability was computed.
        """
        ranked = [[*self._wanted(beam), *tokens] for beam, tokens in zip(beams, ranked, strict=True)]
        kept: list[dict[str, int]] = [{} for _ in beams]
        tried = [0] * len(beams)
        while pairs := [
            (number, token)
            for number, tokens in enumerate(ranked)
            # More are ranked than are needed, since some break a rule; only reading them shows how many.
            for token in tokens[tried[number] : tried[number] + _ahead(count - len(kept[number]))]
        ]:
            for (number, token), text in zip(pairs, appended(self.primary, beams, pairs), strict=True):
                tried[number] += 1
                if (
                    text is not None
                    and len(kept[number]) < count
                    and self.constraints.allows(text, len(beams[number].ids) + 1)
                    and self.context.leaves_prefix(text)
                ):
                    kept[number].setdefault(text, token)
        chosen = [(number, token) for number, tokens in enumerate(kept) for token in tokens.values()]
        at = torch.tensor(chosen, dtype=torch.long).reshape(-1, 2).unbind(1)
        columns = {name: losses[at].tolist() for name, losses in estimates.items()}
        found: list[Proposal] = []
        named = zip(
            [text for texts in kept for text in texts], chosen, log_probabilities[at].tolist(), strict=True
        )
        for index, (text, (number, token), chance) in enumerate(named):
            nll = beams[number].nll
            assert nll is not None
            known = {
                name: column[index] for name, column in columns.items() if column[index] == column[index]
            }
            found.append(Proposal(text, (*beams[number].ids, token), nll - chance, number, known))
        return found

    def _wanted(self, beam: Hypothesis) -> list[int]:
        """The next token of each required phrase that a beam does not have: it must be among the tried."""
        wanted: list[int] = []
        for phrase in self.constraints.missing(beam.text):
            words = f" {' '.join(phrase.split())}"
            # The phrase may be under way: as much of it as the text ends with is not begun again.
            begun = next((end for end in range(len(words) - 1, 0, -1) if beam.text.endswith(words[:end])), 0)
            (ids,) = self.primary.plain_ids([f"{beam.text}{words[begun:]}"])
            if tuple(ids[: len(beam.ids)]) == beam.ids and len(ids) > len(beam.ids):
                wanted.append(ids[len(beam.ids)])
        return [token for token in dict.fromkeys(wanted) if bool(self.allowed[token])]


def _ahead(missing: int) -> int:
    """How many tokens to try for so many that are missing: most keep the rules."""
    return missing + missing // 8 + 4 if missing else 0

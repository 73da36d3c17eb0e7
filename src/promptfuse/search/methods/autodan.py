"""Methods that append: AutoDAN, guided by the other models' gradients, and its random baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from promptfuse.errors import ConfigError, TextError
from promptfuse.search.hypothesis import Hypothesis, Proposal
from promptfuse.search.methods.guidance import Guidance
from promptfuse.search.methods.openings import openings
from promptfuse.search.methods.proposer import Proposed, Proposer, SearchContext, with_nll
from promptfuse.search.methods.settings import AutoDAN, RandomAppend
from promptfuse.search.readback import appended
from promptfuse.search.sentences import SENTENCE_ENDS
from promptfuse.text.segments import special_ids


class AppendProposer(Proposer):
    """A method whose texts grow by a token in each step."""

    appends: ClassVar[bool] = True

    def start(self, given: Sequence[Hypothesis]) -> list[Hypothesis]:
        """See ``Proposer.start``: the texts given, else the prefix."""
        if given:
            return [with_nll(item, self.primary) for item in given]
        if self.setting.prefix_ids:
            return [with_nll(Hypothesis(self.setting.prefix, self.setting.prefix_ids, None), self.primary)]
        if not self.primary.start_ids:
            raise ConfigError(f"{self.primary.name} has no begin-of-text token; give a prefix to begin with")
        return [Hypothesis("", (), 0.0)]

    def has_room(self, beams: Sequence[Hypothesis]) -> bool:
        """Whether the model takes one more token behind each beam."""
        longest = max((len(beam.ids) for beam in beams), default=0)
        return len(self.primary.start_ids) + longest < self.primary.max_length

    def usable(self, beams: Sequence[Hypothesis]) -> Tensor:
        """(beams, vocabulary), false at tokens that cannot stand behind a beam."""
        prefix = self.setting.prefix_ids
        return torch.stack([self.setting.first if beam.ids == prefix else self.allowed for beam in beams])

    def append(
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
        ranked = [[*self._wanted(beam), *tokens] for beam, tokens in zip(beams, ranked, strict=True)]
        kept: list[dict[str, int]] = [{} for _ in beams]
        tried = [0] * len(beams)
        while pairs := [
            (number, token)
            for number, tokens in enumerate(ranked)
            # More are ranked than are needed, since some break a rule: how many, only reading them tells.
            for token in tokens[tried[number] : tried[number] + _ahead(count - len(kept[number]))]
        ]:
            for (number, token), text in zip(pairs, appended(self.primary, beams, pairs), strict=True):
                tried[number] += 1
                if (
                    text is not None
                    and len(kept[number]) < count
                    and self.constraints.allows(text, len(beams[number].ids) + 1)
                    and self.setting.leaves_prefix(text)
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


class GuidedProposer(AppendProposer):
    """AutoDAN: tokens ranked by log-probability and transported gradients."""

    def __init__(self, setting: SearchContext, method: AutoDAN) -> None:
        super().__init__(setting)
        self.method = method
        self.guidance = Guidance(setting.objective, self.primary, method)
        self._special = sorted(special_ids(self.primary.tokenizer))

    def propose(self, beams: Sequence[Hypothesis]) -> Proposed:
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
        scores = self.guidance.scores(self.setting.objective, estimates, log_probabilities, lengths)
        scores[:, : len(self.allowed)].masked_fill_(~self.usable(beams), -torch.inf)
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
        proposals = self.append(beams, tokens, log_probabilities, count, estimates)
        return Proposed(self._opened(beams, proposals), ended)

    def _opened(self, beams: Sequence[Hypothesis], proposals: list[Proposal]) -> list[Proposal]:
        """The proposals, and where the text begins those that begin it with a whole noun phrase.

        They take the places that the first words leave free: none of those is given up for them.
        """
        count = min(self.method.openings, self.setting.width - len(proposals))
        if count < 1 or len(beams) != 1 or beams[0].ids != self.setting.prefix_ids:
            return proposals
        known = {item.text for item in proposals}
        return [*proposals, *(item for item in openings(self.setting, count) if item.text not in known)]

    def _ends(self, log_probabilities: Tensor, count: int) -> bool:
        """Whether an end of text is among the ``count`` most likely next tokens."""
        best = max((float(log_probabilities[index]) for index in self.primary.end_ids), default=float("-inf"))
        likelier = log_probabilities > best
        # Marks of chats and images are never proposed, so nothing comes before the end with them.
        likelier[[index for index in self._special if index < len(likelier)]] = False
        return int(likelier.sum()) < min(count, 4)

    def observe(self, proposals: Sequence[Proposal], losses: dict[str, Tensor]) -> None:
        """See ``Proposer.observe``."""
        self.guidance.observe(proposals, losses)

    @property
    def gains(self) -> dict[str, float]:
        """The guidance's gain by term."""
        return {name: gain.value for name, gain in self.guidance.gains.items()}

    def state_dict(self) -> dict[str, Any]:
        """What the guidance has learned."""
        return self.guidance.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo ``state_dict``."""
        self.guidance.load_state_dict(state)


class RandomProposer(AppendProposer):
    """Tokens drawn uniformly from the allowed ones."""

    def __init__(self, setting: SearchContext, method: RandomAppend) -> None:
        super().__init__(setting)
        self.method = method
        self.generator = setting.generator()

    def propose(self, beams: Sequence[Hypothesis]) -> Proposed:
        """See ``Proposer.propose``."""
        log_probabilities = self.primary.next_log_probabilities([beam.ids for beam in beams]).cpu()
        count = self.method.candidates
        tokens = []
        for mask in self.usable(beams):
            usable = mask.nonzero()[:, 0].numpy()
            draw = min(len(usable), 2 * count + 16)
            tokens.append(self.generator.choice(usable, size=draw, replace=False).tolist())
        # Full stops are among the tokens drawn so rarely that no text would ever end.
        stops = [ids[0] for ids in self.primary.plain_ids(SENTENCE_ENDS) if len(ids) == 1]
        stops = [token for token in stops if bool(self.allowed[token])]
        tokens = [
            stops[:1] + row if beam.text.strip() else row for row, beam in zip(tokens, beams, strict=True)
        ]
        return Proposed(self.append(beams, tokens, log_probabilities, count, {}), [])

    def state_dict(self) -> dict[str, Any]:
        """The generator's state."""
        return {"generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo ``state_dict``."""
        self.generator.bit_generator.state = state["generator"]

"""Left-to-right search with tokens drawn at random: the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptfuse.search.hypothesis import Hypothesis
from promptfuse.search.methods.append import AppendProposer
from promptfuse.search.methods.base import Method, at_least
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.proposer import Proposed, Sampling
from promptfuse.search.methods.registry import methods
from promptfuse.search.sentences import SENTENCE_ENDS


@methods.register("RandomAppend")
@dataclass(frozen=True)
class RandomAppend(Method):
    """Left-to-right search with tokens drawn uniformly: the baseline that knows nothing.

    Attributes:
        candidates: exact evaluations per beam and step.
    """

    candidates: int = 256

    def __post_init__(self) -> None:
        at_least("candidates", self.candidates)

    def proposer(self, context: SearchContext) -> RandomAppendProposer:
        """What makes each step's proposals."""
        return RandomAppendProposer(context, self)


class RandomAppendProposer(Sampling, AppendProposer):
    """Tokens drawn uniformly from the allowed ones."""

    def __init__(self, context: SearchContext, method: RandomAppend) -> None:
        super().__init__(context)
        self.method = method

    def propose(self, beams: Sequence[Hypothesis]) -> Proposed:
        """Proposals for the next texts."""
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

"""AutoDAN: append the token that the language model and the other models' gradients like best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.errors import TextError
from promptfuse.search.hypothesis import Hypothesis, Proposal
from promptfuse.search.methods.append import AppendProposer
from promptfuse.search.methods.base import Method, at_least, require
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.guidance import Guidance
from promptfuse.search.methods.openings import openings
from promptfuse.search.methods.proposer import Proposed
from promptfuse.search.methods.registry import methods
from promptfuse.search.methods.transports import Transports, check_transport
from promptfuse.search.methods.word_prior import WordPrior
from promptfuse.text.segments import special_ids


@methods.register("AutoDAN")
@dataclass(frozen=True)
class AutoDAN(Method):
    """Left-to-right search: append the token that the language model and the gradients like best.

    After Zhu et al. (2023), "AutoDAN", as Williams & Kolter (2024, section 4) use it: candidates are
    ranked by the language model's log-probability and the gradients that the adapter carries over,
    and the best of them are scored exactly. Every term counts with its weight and the weight's sign: with
    a negative weight of the fluency, unlikely tokens are candidates.

    Attributes:
        candidates: exact evaluations per beam and step. The paper's number is 256.
        transport: what carries gradients to the primary's tokens: ``lexical`` (exact sub-tokens of
            each word; our default, since it points better than the maps); ``t-product``,
            ``t-product-paper`` (the paper's); ``sparse-sums``, ``similarities``, ``landmark-pca`` (by tokens
            that both models share); ``effects`` (no gradient, but what each word did to the other model's
            outputs elsewhere, which is measured once, in minutes); ``auto`` (the best of these in a short
            trial on the models), or ``none`` (the language model alone proposes).
        gain: the starting factor on estimated changes. The linear estimate overshoots, so it is
            shrunk; the paper uses it whole (1.0), which ranks worse than no gradient at all here.
            ``effects`` are measured, and start with five times this: 1 by default.
        adapt_gain: refit the factor from the true changes seen so far.
        subtokens: the longest word in secondary tokens whose positions have gradients of their own.
        probe_temperature: the placeholder is the expected next word under the language model's
            distribution at this temperature; flatter estimates better than 1.
        probe: a word to stand there instead, such as ``the``, which estimates worse; it has to be a single
            token of the language model.
        ridge: correct the estimates by a ridge regression of what the search has seen of the true changes
            on the words' embeddings (``Surrogate``), with this penalty in units of their mean squared norm;
            None for no correction. It helps where a loss is far from linear, as a sentence encoder's is.
        openings: the most noun phrases that a text may begin with, scored exactly in the first step: of a
            built-in English list those that the terms of similarity, such as a photo's, like best, as far
            as there are beams that the first words leave free. A word of many tokens, or one that the
            language model holds for rare, is found so; 0 for none.
        word_prior: nats that a word gains in the ranking for each standard deviation by which its cosine to
            what the text is to be similar to is above that of other words (``WordPrior``); 0 for none. It
            finds the words of a text from its embedding, without a forward pass.
    """

    candidates: int = 256
    transport: Transports | Literal["none"] = "lexical"
    gain: float = 0.2
    adapt_gain: bool = True
    subtokens: int = 2
    probe_temperature: float = 3.0
    probe: str | None = None
    ridge: float | None = None
    openings: int = 0
    word_prior: float = 0.0

    def __post_init__(self) -> None:
        at_least("candidates", self.candidates)
        at_least("openings", self.openings, 0)
        require(0 <= self.word_prior <= 100, f"word_prior: {self.word_prior} is out of range; give 0 to 100")
        check_transport(self.transport)
        require(0 <= self.gain <= 10, f"gain: {self.gain} is out of range; give 0 to 10")
        require(1 <= self.subtokens <= 8, f"subtokens: {self.subtokens} is out of range; give 1 to 8")
        require(
            self.ridge is None or 1e-6 <= self.ridge < float("inf"),
            f"ridge: {self.ridge} is out of range; give 1e-6 or more, or none",
        )
        require(
            0 < self.probe_temperature <= 100,
            f"probe_temperature: {self.probe_temperature} is out of range; give a number above 0",
        )

    def proposer(self, context: SearchContext) -> GuidedProposer:
        """What makes each step's proposals."""
        return GuidedProposer(context, self)


class GuidedProposer(AppendProposer):
    """AutoDAN: tokens ranked by log-probability and transported gradients."""

    def __init__(self, context: SearchContext, method: AutoDAN) -> None:
        super().__init__(context)
        self.method = method
        self.guidance = Guidance(context.objective, self.primary, method)
        strength = method.word_prior
        self.words = WordPrior(context.objective, self.primary, strength) if strength else None
        self._special = sorted(special_ids(self.primary.tokenizer))

    def propose(self, beams: Sequence[Hypothesis]) -> Proposed:
        """Proposals for the next texts."""
        log_probabilities = self.primary.next_log_probabilities([beam.ids for beam in beams]).cpu()
        # The models of the other terms cannot judge an empty text, so the first word is the primary's.
        begun = all(beam.text.strip() for beam in beams)
        try:
            texts = [beam.text for beam in beams]
            estimates = self.guidance.estimate(texts, log_probabilities) if begun else {}
        except TextError:  # No room for the placeholder: what still fits is proposed without a gradient.
            estimates = {}
        lengths = [len(beam.ids) for beam in beams]
        scores = self.guidance.scores(self.context.objective, estimates, log_probabilities, lengths)
        if self.words is not None:
            scores += self.words.scores([beam.ids for beam in beams])
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
        count = min(self.method.openings, self.context.width - len(proposals))
        if count < 1 or len(beams) != 1 or beams[0].ids != self.context.prefix_ids:
            return proposals
        known = {item.text for item in proposals}
        return [*proposals, *(item for item in openings(self.context, count) if item.text not in known)]

    def _ends(self, log_probabilities: Float[Tensor, " vocabulary"], count: int) -> bool:
        """Whether an end of text is among the ``count`` most likely next tokens."""
        best = max((float(log_probabilities[index]) for index in self.primary.end_ids), default=float("-inf"))
        likelier = log_probabilities > best
        # Marks of chats and images are never proposed, so nothing comes before the end with them.
        likelier[[index for index in self._special if index < len(likelier)]] = False
        return int(likelier.sum()) < min(count, 4)

    def observe(self, proposals: Sequence[Proposal], losses: dict[str, Float[Tensor, " proposals"]]) -> None:
        """Learn from the true losses of proposals."""
        self.guidance.observe(proposals, losses)

    @property
    def gains(self) -> dict[str, float]:
        """The guidance's gain by term."""
        return {name: gain.value for name, gain in self.guidance.gains.items()}

    def state_dict(self) -> dict[str, Any]:
        """What the guidance has learned."""
        return self.guidance.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.guidance.load_state_dict(state)

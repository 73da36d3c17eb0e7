"""Gradients of the other models, as scores for the primary's tokens.

For each secondary term the gradient at a placeholder for the next word is carried to the primary's
vocabulary by a transport. The placeholder is the *expected* next word: the mean of the other model's
word embeddings under the language model's next-token distribution, flattened by a temperature, which
estimates far better than any fixed word. The linear estimate overshoots, so it is multiplied by a gain,
which is refitted from the true changes that the search observes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.adapters import Transport
from promptfuse.errors import ConfigError
from promptfuse.models import CausalLM
from promptfuse.objectives import Fluency, Objective, Term
from promptfuse.search.hypothesis import Proposal
from promptfuse.search.methods.surrogate import Surrogate
from promptfuse.search.methods.transports import Transports, transport

PRIOR_OBSERVATIONS = 64.0
"""How many observed candidates the starting gain counts as."""

MEASURED_GAIN = 1.0
"""The starting gain of estimates that are made of measured changes."""


class GuidanceSettings(Protocol):
    """The settings that guidance reads; ``AutoDAN`` has them and says what they mean."""

    @property
    def transport(self) -> Transports | Literal["none"]:
        """Which transport carries gradients."""

    @property
    def gain(self) -> float:
        """The starting factor on estimated changes."""

    @property
    def adapt_gain(self) -> bool:
        """Whether the factor is refitted."""

    @property
    def subtokens(self) -> int:
        """The longest word in secondary tokens."""

    @property
    def probe_temperature(self) -> float:
        """The temperature of the placeholder."""

    @property
    def probe(self) -> str | None:
        """A word in its place."""

    @property
    def ridge(self) -> float | None:
        """The penalty of the correction; None for none."""


class Gain:
    """A regression slope through the origin, of true on estimated changes, with a prior.

    Changes are centred within a beam before they come here: only their order among siblings matters.
    """

    def __init__(self, start: float, adapt: bool) -> None:
        self.start = start
        self.adapt = adapt
        self.xy = 0.0
        self.xx = 0.0
        self.count = 0

    @property
    def value(self) -> float:
        """The slope, between 0 and 1."""
        if not self.adapt or self.count == 0 or self.xx <= 0:
            return self.start
        prior = PRIOR_OBSERVATIONS * self.xx / self.count
        slope = (self.xy + self.start * prior) / (self.xx + prior)
        return min(1.0, max(0.0, slope))

    def observe(
        self, estimated: Float[Tensor, " observations"], true: Float[Tensor, " observations"]
    ) -> None:
        """Add centred changes, both (observations,)."""
        self.xy += float(estimated @ true)
        self.xx += float(estimated @ estimated)
        self.count += len(estimated)


class Guidance:
    """Estimates the secondary terms' losses for every next token of the primary."""

    def __init__(self, objective: Objective, primary: CausalLM, method: GuidanceSettings) -> None:
        self.primary = primary
        self.terms: dict[str, Term] = {}
        self.transports: dict[str, Transport] = {}
        self.gains: dict[str, Gain] = {}
        self.surrogates: dict[str, Surrogate] = {}
        self.temperature = method.probe_temperature
        self.probe = None if method.probe is None else word_token(primary, method.probe)
        if method.transport == "none":
            return
        for name, term in objective.terms.items():
            # At the end of a text, a fluency of the primary has no gradient, whatever context it is read in.
            own = isinstance(term, Fluency) and term.lm.plain is primary.plain
            if term.has_gradient and not own:
                self.terms[name] = term
                self.transports[name] = transport(primary, term.model, method.transport, method.subtokens)
                start = method.gain if self.transports[name].overshoots else MEASURED_GAIN
                self.gains[name] = Gain(start, method.adapt_gain)
                if method.ridge is not None:
                    self.surrogates[name] = Surrogate(self.transports[name], method.ridge)

    def estimate(
        self, texts: Sequence[str], log_probabilities: Float[Tensor, "beams vocabulary"]
    ) -> dict[str, Float[Tensor, "beams vocabulary"]]:
        """Estimated loss of every next word, by term.

        Args:
            texts: the beams.
            log_probabilities: (beams, vocabulary) of the primary's next token.

        Returns:
            For each secondary term, (beams, vocabulary); not a number where a token begins no word.
        """
        found = {}
        expected = (log_probabilities / self.temperature).softmax(1)
        if self.probe is not None:
            expected = torch.zeros_like(expected)
            expected[:, self.probe] = 1
        for name, term in self.terms.items():
            found[name] = self.transports[name].losses(term, texts, expected).cpu()
        return found

    def scores(
        self,
        objective: Objective,
        estimates: dict[str, Float[Tensor, "beams vocabulary"]],
        log_probabilities: Float[Tensor, "beams vocabulary"],
        lengths: Sequence[int],
    ) -> Float[Tensor, "beams vocabulary"]:
        """Rank tokens by what the objective is expected to lose by each, (beams, vocabulary); highest first.

        The log-probability of one token counts in the objective as its share of the fluency, 1 / length by
        default. All is in that unit: the log-probability itself, and the other terms'
        changes divided by the *size* of the share. Where fluency has a negative weight, unlikely tokens
        lower the objective, so the log-probability changes its sign; the other terms point where they
        always do.
        Where no term asks for the primary's fluency, its log-probability is the prior of the proposals.
        """
        count = torch.tensor(lengths, dtype=log_probabilities.dtype)[:, None] + 1
        nat = fluency_share(objective, count)
        size = torch.where(nat == 0, torch.ones_like(nat), nat.abs())
        scores = nat.sign() * log_probabilities
        for name, losses in estimates.items():
            known = torch.isfinite(losses)
            chance = log_probabilities.exp() * known
            gain = self.gains[name].value
            change = gain * losses.nan_to_num(0.0)
            if name in self.surrogates and (found := self.surrogates[name].correction(gain)) is not None:
                change += found.cpu().nan_to_num(0.0, 0.0, 0.0)
            mean = (chance * change).sum(1, keepdim=True) / chance.sum(1, keepdim=True).clamp_min(1e-9)
            # A token that begins no word (punctuation, a suffix) is taken to change nothing.
            change = torch.where(known, change - mean, torch.zeros_like(change))
            scores -= self.terms[name].weight / size * change
        return scores

    def observe(self, proposals: Sequence[Proposal], losses: dict[str, Float[Tensor, " proposals"]]) -> None:
        """Refit the gains from a step's true losses, (proposals,) by term."""
        for name, gain in self.gains.items():
            groups: dict[int, list[int]] = {}
            for index, proposal in enumerate(proposals):
                if name in proposal.estimates:
                    groups.setdefault(proposal.parent, []).append(index)
            for indices in groups.values():
                if len(indices) < 2:
                    continue
                estimated = torch.tensor([proposals[index].estimates[name] for index in indices])
                true = losses[name][torch.tensor(indices)].float()
                gain.observe(estimated - estimated.mean(), true - true.mean())
                if name in self.surrogates:
                    tokens = [proposals[index].ids[-1] for index in indices]
                    self.surrogates[name].observe(tokens, estimated, true)

    def state_dict(self) -> dict[str, Any]:
        """The sums that give the gains, and what surrogates have seen; JSON values."""
        sums = {name: [gain.xy, gain.xx, gain.count] for name, gain in self.gains.items()}
        return {
            "gains": sums,
            "surrogates": {name: one.state_dict() for name, one in self.surrogates.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo ``state_dict``; searches that were saved before there were surrogates have the sums alone."""
        gains = state["gains"] if "surrogates" in state else state
        for name, gain in self.gains.items():
            gain.xy, gain.xx, gain.count = gains[name]
        for name, surrogate in self.surrogates.items():
            surrogate.load_state_dict(state["surrogates"][name])


def fluency_share(objective: Objective, tokens: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """What one nat of the primary's NLL adds to the objective's value, weights and their signs included.

    Args:
        objective: its fluency terms under the primary count, all of them; where there is none the share is
            that of a fluency of weight 1, since the primary proposes all the same.
        tokens: numbers of predicted tokens, of any shape.

    Returns:
        Shares of the same shape; negative where likely texts are to be avoided.
    """
    own = own_fluency(objective)
    if not own:
        return 1 / tokens
    return torch.stack([term.weight * term.length_normalizer(tokens) for term in own]).sum(0)


def own_fluency(objective: Objective) -> list[Fluency]:
    """The fluency terms under the primary, after the prefix or context that it reads."""
    terms = objective.terms.values()
    return [term for term in terms if isinstance(term, Fluency) and term.lm is objective.primary]


def word_token(primary: CausalLM, word: str) -> int:
    """The token that is a word with its blank.

    Raises:
        ConfigError: if there is none.
    """
    before, after = primary.plain_ids(["word", f"word {word.strip()}"])
    if len(after) != len(before) + 1 or after[: len(before)] != before:
        raise ConfigError(f"probe: {word!r} is not a single token of {primary.name}; give a more common word")
    return after[-1]

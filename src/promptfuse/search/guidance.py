"""Gradients of the other models, as scores for the primary's tokens.

For each secondary term the gradient at a placeholder for the next word is carried to the primary's
vocabulary by a transport. The placeholder is the *expected* next word: the mean of the other model's
word embeddings under the language model's next-token distribution, which estimates far better than
any fixed word. The linear estimate overshoots, so it is multiplied by a gain, which is refitted from
the true changes that the search observes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional

from promptfuse.adapters import Adapter, LexicalTransport, TProductTransport, Transport
from promptfuse.adapters.words import word_starts
from promptfuse.errors import ModelError
from promptfuse.models import CausalLM, Model
from promptfuse.objectives import Objective, Term
from promptfuse.search.hypothesis import Proposal
from promptfuse.search.methods import AutoDAN
from promptfuse.segments import encode_words

PRIOR_OBSERVATIONS = 64.0
"""How many observed candidates the starting gain counts as."""


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

    def observe(self, estimated: Tensor, true: Tensor) -> None:
        """Add centred changes, both (observations,)."""
        self.xy += float(estimated @ true)
        self.xx += float(estimated @ estimated)
        self.count += len(estimated)


class ExpectedWord:
    """The placeholder for the next word: another model's mean word embedding under a distribution.

    Args:
        primary: the model whose tokens the distribution is over.
        model: the model whose embeddings are averaged; a word of several sub-tokens counts with
            their mean.
    """

    def __init__(self, primary: CausalLM, model: Model) -> None:
        rows = len(primary.embedding_table)
        words = {token: word for token, word in word_starts(primary.tokenizer).items() if token < rows}
        spelled = zip(words, encode_words(model.tokenizer, list(words.values())), strict=True)
        table = model.embedding_table
        known = [(token, ids) for token, ids in spelled if ids is not None and max(ids) < len(table)]
        if not known:
            raise ModelError(
                f"{model.name} can spell none of {primary.name}'s words; use models of one language"
            )
        self.tokens = torch.tensor([token for token, _ in known])
        flat = torch.tensor([index for _, ids in known for index in ids], device=table.device)
        counts = torch.tensor([len(ids) for _, ids in known], device=table.device)
        starts = counts.cumsum(0) - counts
        self.embeddings = functional.embedding_bag(flat, table, starts, mode="mean").float()

    def __call__(self, log_probabilities: Tensor) -> Tensor:
        """Expected embeddings, (beams, d), of next words under (beams, vocabulary) log-probabilities."""
        # Softmax over the words alone: what the other tokens take is shared out.
        chances = log_probabilities[:, self.tokens].softmax(dim=1).to(self.embeddings.device)
        return chances @ self.embeddings


class Guidance:
    """Estimates the secondary terms' losses for every next token of the primary."""

    def __init__(self, objective: Objective, primary: CausalLM, method: AutoDAN) -> None:
        self.primary = primary
        self.terms: dict[str, Term] = {}
        self.bridges: dict[str, Bridge] = {}
        self.gains: dict[str, Gain] = {}
        self.slots = method.subtokens
        if method.transport == "none":
            return
        for name, term in objective.terms.items():
            if term.model is not primary:
                self.terms[name] = term
                self.bridges[name] = bridge(primary, term.model, method.transport, method.subtokens)
                self.gains[name] = Gain(method.gain, method.adapt_gain)

    def estimate(self, texts: Sequence[str], log_probabilities: Tensor) -> dict[str, Tensor]:
        """Estimated loss of every next word, by term.

        Args:
            texts: the beams.
            log_probabilities: (beams, vocabulary) of the primary's next token.

        Returns:
            For each secondary term, (beams, vocabulary); not a number where a token begins no word.
        """
        found = {}
        for name, term in self.terms.items():
            slot = term.slot_gradient(texts, self.bridges[name].probe(log_probabilities), self.slots)
            found[name] = self.bridges[name].transport.estimate(slot).cpu()
        return found

    def scores(
        self,
        objective: Objective,
        estimates: dict[str, Tensor],
        log_probabilities: Tensor,
        lengths: Sequence[int],
    ) -> Tensor:
        """Rank tokens: log-probability plus what the other terms are expected to gain, (beams, vocabulary).

        In the objective the log-probability of one token counts 1 / length of the mean NLL, so the
        other terms' changes are multiplied by the length to be in the same unit.
        """
        scores = log_probabilities.clone()
        fluency = next(term for term in objective.terms.values() if term.model is self.primary)
        count = torch.tensor(lengths, dtype=scores.dtype)[:, None] + 1
        for name, losses in estimates.items():
            known = torch.isfinite(losses)
            chance = log_probabilities.exp() * known
            losses = losses.nan_to_num(0.0)
            mean = (chance * losses).sum(1, keepdim=True) / chance.sum(1, keepdim=True).clamp_min(1e-9)
            # A token that begins no word (punctuation, a suffix) is taken to change nothing.
            change = torch.where(known, losses - mean, torch.zeros_like(losses))
            weight = self.terms[name].weight / fluency.weight
            scores -= self.gains[name].value * weight * count * change
        return scores

    def observe(self, proposals: Sequence[Proposal], losses: dict[str, Tensor]) -> None:
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


@dataclass(frozen=True)
class Bridge:
    """What leads from one secondary model to the primary's tokens."""

    probe: ExpectedWord
    transport: Transport


_BRIDGES: WeakKeyDictionary[CausalLM, dict[tuple[int, str, int], tuple[Model, Bridge]]] = WeakKeyDictionary()


def bridge(
    primary: CausalLM, model: Model, transport: Literal["lexical", "t-product"], subtokens: int
) -> Bridge:
    """The bridge between two loaded models, made once and shared by all searches over them."""
    made = _BRIDGES.setdefault(primary, {})
    key = (id(model), transport, subtokens)
    if key not in made:
        carrier: Transport
        if transport == "lexical":
            carrier = LexicalTransport(primary, model, subtokens)
        else:
            carrier = TProductTransport(Adapter.fit(primary, model), primary, model, subtokens)
        # The model is kept beside its bridge, so that its id cannot be given to another one.
        made[key] = (model, Bridge(ExpectedWord(primary, model), carrier))
    return made[key][1]

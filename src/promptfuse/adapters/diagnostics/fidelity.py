"""Does the transported gradient point the right way? True losses compared with the estimates.

For each text a random sample of the tokens that begin a word is appended, one at a time, and scored
exactly; the estimates of the same losses are compared with that by Spearman's rho and by how many of the
true best 10 are among the estimated best 64 and 256.

Source: the question is Williams and Kolter's, arXiv 2408.04816, who do not measure it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from promptfuse.adapters import Adapter, EffectTransport, LexicalTransport, TProductTransport, Transport
from promptfuse.adapters.diagnostics.cases import Case
from promptfuse.adapters.diagnostics.probes import make_probes
from promptfuse.adapters.diagnostics.ranking import recall, spearman
from promptfuse.adapters.diagnostics.surrogate import ridge_surrogate
from promptfuse.adapters.words import word_starts
from promptfuse.errors import ConfigError
from promptfuse.models import CausalLM, Model
from promptfuse.objectives import transports as by_name

BEST = 10
"""How many of the truly best candidates to look for."""

OBSERVED = 64
"""How many true losses the surrogate sees: those of the estimated best."""

FEWEST = 16
"""The fewest candidates that can tell estimates apart."""

_SUBTOKENS = 3


@dataclass(frozen=True)
class Figures:
    """How good one estimate is.

    Attributes:
        spearman: rank correlation of estimated and true losses.
        recall_10_at_64: share of the true best 10 among the estimated best 64.
        recall_10_at_256: the same among the estimated best 256.
    """

    spearman: float
    recall_10_at_64: float
    recall_10_at_256: float

    @classmethod
    def of(cls, estimates: Tensor, truth: Tensor, order: Tensor | None = None) -> Figures:
        """Compare estimates with the truth, both (K,).

        ``order`` says in which order candidates are scored if that is not the order of the estimates.
        """
        order = estimates if order is None else order
        at = [recall(order, truth, min(BEST, len(truth)), among) for among in (64, 256)]
        return cls(spearman(estimates, truth), *at)

    @classmethod
    def mean(cls, figures: Sequence[Figures]) -> Figures:
        """The mean over texts."""
        columns = zip(
            *((each.spearman, each.recall_10_at_64, each.recall_10_at_256) for each in figures), strict=True
        )
        return cls(*(sum(column) / len(figures) for column in columns))

    def to_json(self) -> dict[str, float]:
        """As plain values."""
        return {
            "spearman": self.spearman,
            "recall_10_at_64": self.recall_10_at_64,
            "recall_10_at_256": self.recall_10_at_256,
        }


@dataclass(frozen=True)
class Observation:
    """One estimate on one text.

    Attributes:
        transport: what was estimated with.
        probe: the probe, empty for what needs none.
        words: length of the text.
        figures: how good it was.
    """

    transport: str
    probe: str
    words: int
    figures: Figures


@dataclass(frozen=True)
class FidelityReport:
    """Fidelity of every transport with every probe.

    Attributes:
        model_a: name of the model whose tokens are proposed.
        model_b: name of the model whose loss is estimated.
        texts: texts that were continued.
        candidates: candidates for each of them.
        observations: one for each transport, probe and text.
    """

    model_a: str
    model_b: str
    texts: int
    candidates: int
    observations: tuple[Observation, ...]

    def rows(self) -> list[tuple[str, str]]:
        """Transports and probes, in the order of the table."""
        return list(dict.fromkeys((each.transport, each.probe) for each in self.observations))

    def mean(self, transport: str, probe: str, words: int | None = None) -> Figures:
        """Mean figures of a row, of all texts or of those of some length."""
        return Figures.mean(
            [
                each.figures
                for each in self.observations
                if (each.transport, each.probe) == (transport, probe) and words in (None, each.words)
            ]
        )

    def to_json(self) -> dict[str, dict[str, Any]]:
        """``{transport: {spearman, recall_10_at_64, recall_10_at_256, ...}}``.

        The figures are those of the first probe; ``probes`` has those of all, ``by_words`` the first
        probe's by length of text.
        """
        plain: dict[str, dict[str, Any]] = {}
        for transport, probe in self.rows():
            figures = self.mean(transport, probe).to_json()
            if transport not in plain:
                lengths = sorted({each.words for each in self.observations if each.transport == transport})
                by_words = {str(words): self.mean(transport, probe, words).to_json() for words in lengths}
                plain[transport] = {**figures, "by_words": by_words}
                if probe:
                    plain[transport] |= {"probe": probe, "probes": {}}
            if probe:
                plain[transport]["probes"][probe] = figures
        return plain

    def __str__(self) -> str:
        lines = [
            f"{self.model_a} -> {self.model_b}: {self.texts} texts x {self.candidates} candidates",
            f"{'transport':<20}{'probe':<10}{'spearman':>10}{'10 in 64':>10}{'10 in 256':>11}",
        ]
        for transport, probe in self.rows():
            found = self.mean(transport, probe)
            lines.append(
                f"{transport:<20}{probe or '-':<10}{found.spearman:>10.3f}"
                f"{found.recall_10_at_64:>10.3f}{found.recall_10_at_256:>11.3f}"
            )
        return "\n".join(lines)


def measure(
    primary: CausalLM,
    model: Model,
    cases: Sequence[Case],
    adapters: Mapping[str, Adapter],
    *,
    others: Sequence[str] = (),
    candidates: int = 512,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FidelityReport:
    """Measure the fidelity of all transports between two models.

    Args:
        primary: A, the model whose tokens are proposed.
        model: B, the model whose loss is estimated.
        cases: B's losses and the texts that are continued.
        adapters: the t-product's, by the name that its row gets.
        others: names of further transports; ``effects`` is first measured, which may take minutes.
        candidates: size of the random sample of word-beginning tokens; all of them if there are fewer.
        seed: of the samples and of the random estimate.
        progress: called with the texts done and the texts in all.

    Raises:
        ConfigError: if there are too few candidates to compare.
        ModelError: if a loss is not finite.
        TextError: if a text with its candidate is longer than B takes.
    """
    if candidates < FEWEST:
        raise ConfigError(f"{candidates} candidates: must be at least {FEWEST} to rank them")
    bench = _Bench(primary, model, adapters, others)
    count = min(candidates, len(bench.tokens))
    if count < FEWEST:
        raise ConfigError(
            f"{primary.name} has {count} tokens that begin a word and {model.name} can spell, "
            f"{FEWEST} are needed; use other models"
        )
    generator = torch.Generator().manual_seed(seed)
    observations: list[Observation] = []
    total, done = sum(len(case.texts) for case in cases), 0
    for case in cases:
        for text in case.texts:
            chosen = torch.randperm(len(bench.tokens), generator=generator)[:count]
            for transport, probe, figures in bench.compare(case, text, chosen, generator):
                observations.append(Observation(transport, probe, len(text.split()), figures))
            done += 1
            if progress is not None:
                progress(done, total)
    return FidelityReport(primary.name, model.name, total, count, tuple(observations))


class _Bench:
    """What all texts share."""

    def __init__(
        self, primary: CausalLM, model: Model, adapters: Mapping[str, Adapter], others: Sequence[str]
    ) -> None:
        self.primary = primary
        lexical = LexicalTransport(primary, model, _SUBTOKENS)
        self.probes = make_probes(model, lexical)
        self.tokens, self.embeddings = lexical.tokens, lexical.word_embeddings().cpu()
        words = word_starts(primary.tokenizer)
        self.words = [words[token] for token in self.tokens.tolist()]
        make = partial(TProductTransport, model_a=primary, model_b=model, max_subtokens=_SUBTOKENS)
        self.transports: dict[str, Transport] = {name: make(adapter) for name, adapter in adapters.items()}
        self.transports |= {name: by_name.transport(primary, model, name, _SUBTOKENS) for name in others}
        self.transports["lexical"] = lexical

    def compare(
        self, case: Case, text: str, chosen: Tensor, generator: torch.Generator
    ) -> list[tuple[str, str, Figures]]:
        """Rows (transport, probe, figures) for one text.

        Args:
            case: the loss.
            text: the text.
            chosen: (K,), indices into the words.
            generator: for the random estimate.
        """
        truth = case.term.score([text + self.words[index] for index in chosen.tolist()]).cpu().double()
        scores = self.primary.next_log_probabilities(self.primary.plain_ids([text])).cpu()
        noise = torch.rand(len(chosen), generator=generator)
        rows = [
            ("lm-prior", "", Figures.of(-scores[0, self.tokens[chosen]], truth)),
            ("random", "", Figures.of(noise, truth)),
        ]
        surrogates = []
        slots = {
            name: case.term.slot_gradient([text], probe(scores), _SUBTOKENS)
            for name, probe in self.probes.items()
        }
        for name, carrier in self.transports.items():
            if isinstance(carrier, EffectTransport):
                estimates = carrier.losses(case.term, [text], scores.exp())[0].cpu().double()
                rows.append((name, "", Figures.of(estimates[self.tokens[chosen]], truth)))
                continue
            for probe, slot in slots.items():
                estimates = carrier.estimate(slot)[0].cpu().double()[self.tokens[chosen]]
                rows.append((name, probe, Figures.of(estimates, truth)))
                if name == "lexical":
                    corrected = corrected_figures(self.embeddings[chosen], estimates, truth)
                    surrogates.append(("lexical-surrogate", probe, corrected))
        return [*rows, *surrogates, ("oracle", "", Figures.of(truth, truth))]


def corrected_figures(features: Tensor, estimates: Tensor, truth: Tensor) -> Figures:
    """Figures of the estimates after the true losses of the estimated best have corrected them.

    The observed candidates count as looked at, so recall in 64 is that of the estimates before the
    correction, and recall in 256 is that of 64 candidates by the estimates and 192 by the correction.

    Args:
        features: (K, d), B's embeddings of the candidates.
        estimates: (K,).
        truth: (K,), of which the estimated best are observed: 64, or half if there are fewer than 128.
    """
    observed = estimates.argsort(stable=True)[: min(OBSERVED, len(truth) // 2)]
    predicted = ridge_surrogate(features, estimates, observed, truth[observed])
    order = predicted.clone()
    order[observed] = -torch.inf
    return Figures.of(predicted, truth, order)

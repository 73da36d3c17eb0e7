"""The transport that ranks words best for two models, by a short trial on these very models."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import torch
from torch import Tensor

from promptfuse._utils.atomic_files import atomic_write
from promptfuse.adapters import AnchorTransport, EffectTransport, LexicalTransport, Transport
from promptfuse.adapters.anchors import PLACINGS, place_tokens
from promptfuse.adapters.cache import cache_folder
from promptfuse.adapters.diagnostics.cases import Case, make_cases
from promptfuse.adapters.diagnostics.probes import TEMPERATURE
from promptfuse.adapters.diagnostics.ranking import spearman
from promptfuse.adapters.effects import shape_of
from promptfuse.adapters.words import word_starts
from promptfuse.errors import AdapterError, ModelError
from promptfuse.models import CausalLM, Model
from promptfuse.objectives.effects import measure_effects
from promptfuse.objectives.transports import transport

LOGGER = logging.getLogger(__name__)

TEXTS = 4
WORDS = 96
_SUBTOKENS = 2
_REVISION = 1
"""To be raised when the same models may come to have another transport."""


def best_transport(primary: CausalLM, model: Model, seed: int = 0) -> str:
    """The name of the transport whose estimates rank words best.

    A writes four texts, 96 words are appended to each and scored exactly, and the mean rank correlation of
    the estimates decides. The answer is kept in the cache of adapters. ``lexical`` for models that cannot be
    tried, such as a language model that judges.

    Args:
        primary: A, the language model whose tokens are proposed.
        model: B, whose losses are estimated.
        seed: of the texts and words.
    """
    return str(trial(primary, model, seed)["transport"])


def trial(primary: CausalLM, model: Model, seed: int = 0) -> dict[str, Any]:
    """What was chosen, and all mean rank correlations: ``{transport, spearman: {name: rho}}``."""
    primary = primary.plain
    known: dict[tuple[str, int], dict[str, Any]] = primary.__dict__.setdefault("_transport_trials", {})
    key = json.dumps([_REVISION, primary.identity, model.identity, TEXTS, WORDS, seed])
    if (key, seed) in known:
        return known[key, seed]
    found: dict[str, Any]
    path = cache_folder() / f"choice-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        assert found["transport"] in found["spearman"]
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        found = _try_all(primary, model, seed)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, json.dumps(found, indent=1) + "\n")
        except OSError as error:
            LOGGER.warning("%s", f"{path}: {error.strerror or error}; the choice of a transport is not kept")
    figures = ", ".join(f"{name} {rho:.2f}" for name, rho in found["spearman"].items())
    LOGGER.warning(
        "%s",
        f"transport for {primary.name} -> {model.name}: {found['transport']} (rank correlation: {figures})",
    )
    known[key, seed] = found
    return found


def _try_all(primary: CausalLM, model: Model, seed: int) -> dict[str, Any]:
    try:
        cases = make_cases(primary, model, TEXTS, (), seed)
    except ModelError:
        return {"transport": "lexical", "spearman": {"lexical": 0.0}}
    lexical = LexicalTransport(primary, model, _SUBTOKENS)
    generator = torch.Generator().manual_seed(seed)
    tokens = lexical.tokens[torch.randperm(len(lexical.tokens), generator=generator)[:WORDS]].sort().values
    starts = word_starts(primary.tokenizer)
    words = [starts[token] for token in tokens.tolist()]
    candidates: dict[str, Transport] = {"lexical": lexical}
    effects, alone = measure_effects(model, words)
    every = effects.new_full((len(lexical.tokens), effects.shape[1]), torch.nan)
    every[torch.searchsorted(lexical.tokens, tokens)] = effects
    candidates["effects"] = EffectTransport(every, shape_of(alone), primary, model, _SUBTOKENS)
    try:
        for placing in PLACINGS:
            table = place_tokens(placing, primary, model, lexical, tokens)
            candidates[placing] = AnchorTransport(table, primary, model)
        candidates["t-product"] = transport(primary, model, "t-product", _SUBTOKENS)
    except AdapterError as error:
        LOGGER.info("%s", f"not tried: {error}")
    figures = [_figures(candidates, case, primary, tokens, words) for case in cases]
    means = {name: sum(figure[name] for figure in figures) / len(figures) for name in candidates}
    return {"transport": max(means, key=lambda name: means[name]), "spearman": means}


def _figures(
    candidates: dict[str, Transport], case: Case, primary: CausalLM, tokens: Tensor, words: list[str]
) -> dict[str, float]:
    """Rank correlation of each candidate's estimates on the case's shortest text."""
    text = case.texts[0]
    truth = case.term.score([text + word for word in words]).cpu().double()
    scores = primary.next_log_probabilities(primary.plain_ids([text])).cpu()
    probabilities = (scores / TEMPERATURE).softmax(1)
    return {
        name: spearman(one.losses(case.term, [text], probabilities)[0].cpu().double()[tokens], truth)
        for name, one in candidates.items()
    }

"""The transports by name, made for two models and kept in the cache of adapters."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor

from promptfuse.adapters import Adapter, AnchorTransport, EffectTransport, LexicalTransport, TProductTransport
from promptfuse.adapters.anchors import ATOMS, MOST_ATOMS, place_tokens
from promptfuse.adapters.cache import cached_tensors
from promptfuse.adapters.effects import shape_of
from promptfuse.adapters.transports import Transport
from promptfuse.adapters.words import word_starts
from promptfuse.models import CausalLM, DiffusionModel, Model
from promptfuse.objectives.effects import CONTEXTS, measure_effects

LOGGER = logging.getLogger(__name__)

Kind = Literal[
    "lexical", "t-product", "t-product-paper", "sparse-sums", "similarities", "landmark-pca", "effects"
]
"""Names of transports."""

Maker = Callable[[CausalLM, Model, int], Transport]
"""From A, B and the longest slot to a transport."""


def _t_product(preset: str, primary: CausalLM, model: Model, subtokens: int) -> Transport:
    return TProductTransport(Adapter.for_models(primary, model, preset), primary, model, subtokens)


def _anchors(placing: str, primary: CausalLM, model: Model, subtokens: int) -> Transport:
    def make() -> dict[str, Tensor]:
        return {"table": place_tokens(placing, primary, model, LexicalTransport(primary, model, 1))}

    del subtokens
    found = cached_tensors(primary, model, placing, [ATOMS, MOST_ATOMS], make)
    return AnchorTransport(found["table"], primary, model)


def _effects(primary: CausalLM, model: Model, subtokens: int) -> Transport:
    lexical = LexicalTransport(primary, model, subtokens)
    # One predicts tokens, the other has a row of numbers for each token: there are no features to move.
    if model.logits_width or isinstance(model, DiffusionModel):
        return lexical

    def make() -> dict[str, Tensor]:
        starts = word_starts(primary.tokenizer)
        words = [starts[token] for token in lexical.tokens.tolist()]
        count = f"{len(words):,} words x {len(CONTEXTS)} texts"
        LOGGER.warning("effects: measuring %s with %s, once for these models", count, model.name)
        effects, alone = measure_effects(model, words)
        return {"effects": effects, "alone": alone}

    found = cached_tensors(primary, model, "effects", [model.identity, list(CONTEXTS)], make)
    return EffectTransport(found["effects"], shape_of(found["alone"]), primary, model, subtokens)


TRANSPORTS: dict[str, Maker] = {
    "lexical": LexicalTransport,
    "t-product": partial(_t_product, "default"),
    "t-product-paper": partial(_t_product, "paper"),
    "sparse-sums": partial(_anchors, "sparse-sums"),
    "similarities": partial(_anchors, "similarities"),
    "landmark-pca": partial(_anchors, "landmark-pca"),
    "effects": _effects,
}
"""What makes each transport; `Kind` has the same names."""


def transport(primary: CausalLM, model: Model, kind: str, subtokens: int) -> Transport:
    """The transport between two loaded models, made once and shared by all searches over them.

    Args:
        primary: A, the language model whose tokens are proposed.
        model: B, whose loss is estimated.
        kind: a name of `TRANSPORTS`.
        subtokens: the longest slot.

    Raises:
        AdapterError: if no word or token is common to both.
    """
    # With the primary: a table elsewhere would keep it, since a transport knows both its models.
    # What stands before the texts changes nothing of it.
    primary = primary.plain
    made: dict[tuple[int, int, str, int], tuple[Model, Transport]] = primary.__dict__.setdefault(
        "_transports", {}
    )
    model = model.plain if isinstance(model, CausalLM) else model
    key = (id(model), model.generation, kind, subtokens)
    if key not in made:
        # The model is kept beside its transport, so that its id cannot be given to another one.
        made[key] = (model, TRANSPORTS[kind](primary, model, subtokens))
    return made[key][1]

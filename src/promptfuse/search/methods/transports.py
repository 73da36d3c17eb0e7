"""How gradients of other models come to the primary's tokens."""

from __future__ import annotations

from typing import Literal, get_args

from promptfuse.adapters import Adapter, LexicalTransport, TProductTransport, Transport
from promptfuse.models import CausalLM, Model
from promptfuse.search.methods.base import one_of

Transports = Literal["lexical", "t-product", "t-product-paper"]
"""By the exact sub-tokens of each word, through an adapter fitted with our defaults, or as the paper's."""


def check_transport(name: str) -> None:
    """Raise ``ConfigError`` for a transport that is not known; ``none`` always is."""
    one_of("transport", name, (*get_args(Transports), "none"))


def transport(primary: CausalLM, model: Model, kind: Transports, subtokens: int) -> Transport:
    """The transport between two loaded models, made once and shared by all searches over them."""
    # With the primary: a table elsewhere would keep it, since a transport knows both its models.
    # What stands before the texts changes nothing of it.
    primary = primary.plain
    made: dict[tuple[int, int, str, int], tuple[Model, Transport]] = primary.__dict__.setdefault(
        "_transports", {}
    )
    model = model.plain if isinstance(model, CausalLM) else model
    key = (id(model), model.generation, kind, subtokens)
    if key not in made:
        found: Transport
        if kind == "lexical":
            found = LexicalTransport(primary, model, subtokens)
        else:
            preset = "paper" if kind == "t-product-paper" else "default"
            adapter = Adapter.for_models(primary, model, preset=preset)
            found = TProductTransport(adapter, primary, model, subtokens)
        # The model is kept beside its transport, so that its id cannot be given to another one.
        made[key] = (model, found)
    return made[key][1]

"""How gradients of other models come to the primary's tokens."""

from __future__ import annotations

from typing import Literal, get_args

from promptfuse.adapters import Transport
from promptfuse.adapters.diagnostics.choice import best_transport
from promptfuse.models import CausalLM, Model
from promptfuse.objectives import transports
from promptfuse.search.methods.base import one_of

Transports = transports.Kind | Literal["auto"]
"""A transport by its name, or ``auto`` for the one that ranks best in a short trial on the very models."""


def check_transport(name: str) -> None:
    """Raise ``ConfigError`` for a transport that is not known; ``none`` and ``auto`` always are."""
    one_of("transport", name, (*get_args(transports.Kind), "auto", "none"))


def transport_name(primary: CausalLM, model: Model, kind: str) -> str:
    """The name of the transport between two loaded models; that of ``auto`` by a trial."""
    return best_transport(primary, model) if kind == "auto" else kind


def transport(primary: CausalLM, model: Model, kind: str, subtokens: int) -> Transport:
    """The transport between two loaded models, made once and shared by all searches over them."""
    return transports.transport(primary, model, transport_name(primary, model, kind), subtokens)

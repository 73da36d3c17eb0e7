"""Layers of a text tower such as CLIP's, but for their attention: what comes before it, and what behind."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from promptfuse.models.fast.products import linear


class Block(Protocol):
    """A layer without its attention."""

    def project(self, hidden: Tensor, asking: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, keys and values, each (tokens, heads, width).

        Args:
            hidden: (tokens, d), the layer's input.
            asking: the tokens that have queries; None for all.
        """

    def finish(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """The layer's output, (tokens, d).

        Args:
            hidden: (tokens, d), the layer's input of the tokens that have queries.
            mixed: (tokens, heads, width), what attention makes of their queries.
        """


class ModuleBlock:
    """A layer by its modules, whatever their kind; differentiable.

    Args:
        layer: a ``CLIPEncoderLayer``, or what has the same parts.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.heads = int(layer.self_attn.num_heads)

    def project(self, hidden: Tensor, asking: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Block.project``."""
        attention = self.layer.self_attn
        normed = self.layer.layer_norm1(hidden)
        keys, values = linear(attention.k_proj, normed), linear(attention.v_proj, normed)
        queries = linear(attention.q_proj, normed if asking is None else normed[asking]) * attention.scale
        return self._by_head(queries), self._by_head(keys), self._by_head(values)

    def finish(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """See ``Block.finish``."""
        layer, mlp = self.layer, self.layer.mlp
        hidden = hidden + linear(layer.self_attn.out_proj, mixed.flatten(1))
        return hidden + linear(mlp.fc2, mlp.activation_fn(linear(mlp.fc1, layer.layer_norm2(hidden))))

    def _by_head(self, tensor: Tensor) -> Tensor:
        return tensor.view(len(tensor), self.heads, -1)

"""Layers of a text tower by weights that were prepared for oneDNN: float32 on CPUs, in few passes.

Queries, keys and values are one product, and sums are part of the products before them. So is OpenAI's GELU:
oneDNN knows the swish, x times its sigmoid, and the GELU of x is the swish of 1.702 x, divided by 1.702. The
norm before it has the one factor and the weights behind it the other.

What the weights were is not looked at here: whoever keeps layers makes them anew when the weights change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import QuickGELUActivation

from promptfuse.models.fast.onednn_weights import PACKED, pack
from promptfuse.models.fast.products import has_onednn

_QUICK = 1.702
"""The factor of ``QuickGELUActivation``: x times the sigmoid of 1.702 x."""


class Part(NamedTuple):
    """A linear layer, and what its weight and its bias are multiplied by."""

    module: nn.Linear
    weight: float = 1.0
    bias: float = 1.0


class Product:
    """A product and its bias; also backwards.

    Args:
        parts: layers of one input, whose outputs stand side by side.
    """

    def __init__(self, *parts: Part) -> None:
        self._parts = parts
        self._there = pack(self._weight())
        self._back: Tensor | None = None
        self._bias = torch.cat([_bias(part.module, part.module.out_features) * part.bias for part in parts])

    def _weight(self) -> Tensor:
        return torch.cat([part.module.weight * part.weight for part in self._parts])

    def __call__(self, inputs: Tensor, plus: Tensor | None = None, behind: str = "none") -> Tensor:
        """The product, (rows, out).

        Args:
            inputs: (rows, in).
            plus: (rows, out), to be added.
            behind: what oneDNN applies to the result where nothing is added.
        """
        multiply = torch.ops.mkldnn._linear_pointwise
        found: Tensor
        if plus is None:
            found = multiply.default(inputs, self._there, self._bias, behind, [], "")
        else:
            found = multiply.binary(inputs, plus, self._there, self._bias, "add")
        return found

    def back(self, gradient: Tensor) -> Tensor:
        """The gradient at the inputs, (rows, in), from the one at the product, (rows, out)."""
        if self._back is None:
            self._back = pack(self._weight().t())
        found: Tensor = torch.ops.mkldnn._linear_pointwise.default(gradient, self._back, None, "none", [], "")
        return found


def _bias(module: nn.Linear | nn.LayerNorm, width: int) -> Tensor:
    bias: Tensor | None = module.bias
    return torch.zeros(width) if bias is None else bias


class Norm:
    """A layer norm, multiplied by a factor; also backwards."""

    def __init__(self, module: nn.LayerNorm, factor: float = 1.0) -> None:
        self.shape, self.eps = list(module.normalized_shape), module.eps
        weight: Tensor | None = module.weight
        self.weight = (torch.ones(self.shape) if weight is None else weight) * factor
        self.bias = _bias(module, self.shape[0]) * factor

    def __call__(self, inputs: Tensor) -> Tensor:
        """The norm, (rows, d)."""
        return functional.layer_norm(inputs, self.shape, self.weight, self.bias, self.eps)

    def measured(self, inputs: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The norm, (rows, d), and what gives the gradient at the inputs from the one at the norm."""
        normed, *measures = torch.native_layer_norm(inputs, self.shape, self.weight, self.bias, self.eps)

        def back(gradient: Tensor) -> Tensor:
            found: tuple[Tensor, ...] = torch.ops.aten.native_layer_norm_backward(
                gradient, inputs, self.shape, *measures, self.weight, self.bias, [True, False, False]
            )
            return found[0]

        return normed, back


class PackedBlock:
    """A layer; see the module.

    Args:
        layer: its modules.
        last: whether it is the last layer, of which not all tokens' queries are wanted.

    Attributes:
        swish: whether the activation is part of the product before it.
    """

    def __init__(self, layer: Any, last: bool) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.heads, self.width = int(attention.num_heads), int(attention.k_proj.out_features)
        self.activation: nn.Module = mlp.activation_fn
        self.swish = type(mlp.activation_fn) is QuickGELUActivation
        factor = _QUICK if self.swish else 1.0
        said = Part(attention.k_proj), Part(attention.v_proj)
        asked = Part(attention.q_proj, float(attention.scale), float(attention.scale))
        self.norm = Norm(layer.layer_norm1)
        self.inward = Product(*said) if last else Product(*said, asked)
        self.asking = Product(asked) if last else None
        self.outward = Product(Part(attention.out_proj))
        self.inner_norm = Norm(layer.layer_norm2, factor)
        self.first = Product(Part(mlp.fc1, bias=factor))
        self.second = Product(Part(mlp.fc2, 1 / factor))

    def project(self, hidden: Tensor, asking: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Block.project``."""
        return self.by_head(self.norm(hidden), asking)

    def by_head(self, normed: Tensor, asking: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """``project`` behind its norm; only the last layer can be asked for some tokens' queries."""
        found = self.inward(normed)
        keys, values, *queries = found.view(len(found), -1, self.heads, self.width // self.heads).unbind(1)
        if self.asking is None:
            return queries[0], keys, values
        asked = self.asking(normed if asking is None else normed[asking])
        return asked.view(-1, *keys.shape[1:]), keys, values

    def by_head_back(self, queries: Tensor, keys: Tensor, values: Tensor, asking: Tensor | None) -> Tensor:
        """The gradient at what ``by_head`` is given, (tokens, d), from those at what it gives."""
        said = [keys.flatten(1), values.flatten(1)]
        if self.asking is None:
            return self.inward.back(torch.cat([*said, queries.flatten(1)], 1))
        found, asked = self.inward.back(torch.cat(said, 1)), self.asking.back(queries.flatten(1))
        return found.add_(asked) if asking is None else found.index_add_(0, asking, asked)

    def finish(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """See ``Block.finish``."""
        hidden = self.outward(mixed.flatten(1), hidden)
        normed = self.inner_norm(hidden)
        inner = self.first(normed, behind="swish") if self.swish else self.activation(self.first(normed))
        return self.second(inner, hidden)


class PackedBlocks:
    """The layers of a tower, as long as there is room for their weights.

    Args:
        layers: their modules.

    Attributes:
        blocks: the layers; None if they are of another kind, or there is no room.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = list(layers)
        self._modules = [part for layer in layers for part in layer.modules()]
        self._nbytes = sum(part.weight.nbytes for part in self._modules if isinstance(part, nn.Linear))
        self.blocks: list[PackedBlock] | None = None
        if has_onednn() and all(map(_is_plain, layers)) and PACKED.reserve(self, self._nbytes):
            with torch.no_grad():
                self.blocks = [PackedBlock(layer, layer is layers[-1]) for layer in layers]

    def __reduce__(self) -> tuple[type[PackedBlocks], tuple[list[Any]]]:
        """A copy is made of its own modules: what oneDNN made of weights can be neither copied nor sent."""
        return PackedBlocks, (self._layers,)

    def usable(self, gradient: bool) -> list[PackedBlock] | None:
        """The layers; None where their modules have to be called now.

        Args:
            gradient: whether gradients at the tower's input are wanted.
        """
        if self.blocks is None or not torch.backends.mkldnn.enabled or torch.is_autocast_enabled("cpu"):
            return None
        if any(
            part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
            for part in self._modules
        ):
            return None
        if torch.is_grad_enabled() and any(
            weight.requires_grad
            for part in self._modules
            for weight in part._parameters.values()
            if weight is not None
        ):
            return None
        # The weights are packed once more for the way back.
        return self.blocks if not gradient or PACKED.reserve(self, 2 * self._nbytes) else None


def _is_plain(layer: Any) -> bool:
    """Whether a layer is what ``PackedBlock`` makes of it."""
    attention, mlp = layer.self_attn, layer.mlp
    linears = [attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj, mlp.fc1, mlp.fc2]
    norms = [layer.layer_norm1, layer.layer_norm2]
    return (
        all(type(part) is nn.Linear for part in linears)
        and all(type(part) is nn.LayerNorm for part in norms)
        and isinstance(mlp.activation_fn, nn.Module)
        and not getattr(mlp.activation_fn, "inplace", False)  # The way back needs what goes in.
        and all("forward" not in part.__dict__ for part in (*linears, *norms, mlp.activation_fn))
        and all(one.dtype == torch.float32 and one.device.type == "cpu" for one in layer.parameters())
    )

"""Products of linear layers with frozen weights, by the faster of torch's two libraries.

For float32 on x86, torch multiplies with MKL, which reaches half the rate of oneDNN on AMD's processors
(98 against 218 GFLOP/s on one Zen 5 core, 1,024 x 512 x 2,048) and the same on Intel's. Torch has both built
in, but asks oneDNN only in compiled models.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from promptfuse.models.fast.onednn_weights import PACKED


@cache
def has_onednn() -> bool:
    """Whether oneDNN's float32 products can be asked for on this machine."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        _multiply(torch.ones(2, 3), torch.ones(4, 3), None)
    except (AttributeError, RuntimeError):
        return False
    return True


class FastProducts:
    """Has the linear layers of a module, and GPT-2's transposed ones, multiply by oneDNN within a block.

    Args:
        module: whose layers they are; ``clear`` after its layers have been replaced.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._layers: list[tuple[nn.Module, partial[Tensor]]] | None = None

    def clear(self) -> None:
        """Forget the packed weights, and look for the layers again at the next use."""
        PACKED.drop(self.module.parameters())
        self._layers = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """The block; where oneDNN cannot be asked, nothing changes."""
        if not torch.backends.mkldnn.enabled or not has_onednn():
            yield
            return
        if self._layers is None:
            parts = (part for part in self.module.modules() if type(part) in (nn.Linear, Conv1D))
            self._layers = [(part, partial(fast_linear, part)) for part in parts]
        # A layer with a forward pass of its own has been changed by somebody, to be loaded in parts, say.
        patched = [(layer, forward) for layer, forward in self._layers if "forward" not in layer.__dict__]
        for layer, forward in patched:
            layer.__dict__["forward"] = forward
        try:
            yield
        finally:
            for layer, _ in patched:
                layer.__dict__.pop("forward", None)


def fast_linear(layer: nn.Module, inputs: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape out"]:
    """``layer(inputs)``, faster for float32 on a CPU where the layer's weights take no gradient.

    Args:
        layer: an ``nn.Linear`` or a ``Conv1D`` of transformers.
        inputs: (..., in).
    """
    weight: Tensor = layer.weight  # type: ignore[assignment]
    bias: Tensor | None = layer.bias  # type: ignore[assignment]
    gradient = torch.is_grad_enabled()
    if (
        not inputs.dtype == weight.dtype == torch.float32
        or inputs.device.type != "cpu"
        or not inputs.numel()
        or (gradient and (weight.requires_grad or (bias is not None and bias.requires_grad)))
        or not torch.backends.mkldnn.enabled
        or torch.is_autocast_enabled("cpu")
        or weight.is_inference()
        or not has_onednn()
    ):
        found: Tensor = type(layer).forward(layer, inputs)
        return found
    transposed = type(layer) is Conv1D
    if gradient and inputs.requires_grad:
        return _Product.apply(inputs, weight, bias, transposed)  # type: ignore[no-untyped-call,no-any-return]
    return _multiply(inputs, weight, bias, transposed)


class _Product(torch.autograd.Function):
    """A product with weights that take no gradient, forwards and backwards by oneDNN."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.transposed = transposed
        return _multiply(inputs, weight, bias, transposed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        return _multiply(gradient, weight, None, not ctx.transposed), None, None, None


def _multiply(
    inputs: Float[Tensor, "*shape d"],
    weight: Float[Tensor, "_ _"],
    bias: Float[Tensor, " out"] | None,
    transposed: bool = False,
) -> Float[Tensor, "*shape out"]:
    """A product and its bias, (..., out), by oneDNN; the weight is (out, in), or (in, out) if transposed."""
    matrix = PACKED.of(weight, transposed)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, matrix, bias, "none", [], "")
    return found

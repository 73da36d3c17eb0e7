"""Matrix products without gradients, by the faster of torch's two libraries.

For float32 on x86, torch multiplies with MKL, which reaches half the rate of oneDNN on AMD's processors
(98 against 218 GFLOP/s on one Zen 5 core, 1,024 x 512 x 2,048) and the same on Intel's. Torch has both built
in, but asks oneDNN only in compiled models.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode
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


def linear(module: nn.Module, inputs: Tensor) -> Tensor:
    """``module(inputs)``, faster where the module is a plain linear one whose weights take no gradient.

    Args:
        module: what is to be applied.
        inputs: (rows, d).
    """
    if type(module) is nn.Linear and _asked(inputs, module.weight):
        if not (torch.is_grad_enabled() and inputs.requires_grad):
            return _multiply(inputs, module.weight, module.bias)
        if inputs.dim() == 2 and not module.weight.requires_grad:
            return _Product.apply(inputs, module.weight, module.bias)  # type: ignore[no-untyped-call,no-any-return]
    found: Tensor = module(inputs)
    return found


def product(inputs: Tensor, weight: Tensor) -> Tensor:
    """``inputs @ weight.T``, faster where neither takes a gradient.

    Args:
        inputs: (..., d).
        weight: (out, d), or the transpose of a (d, out).
    """
    if _asked(inputs, weight) and not (torch.is_grad_enabled() and inputs.requires_grad):
        base = weight._base
        if base is not None and base.dim() == 2 and weight.T.is_set_to(base):
            return _multiply(inputs, base, None, transposed=True)  # What is kept is kept of the parameter.
        return _multiply(inputs, weight, None)
    return functional.linear(inputs, weight)


def _asked(inputs: Tensor, weight: Tensor) -> bool:
    """Whether a product of a layer can be asked of oneDNN, and its weights take no gradient now."""
    return (
        inputs.dtype == weight.dtype == torch.float32
        and inputs.device.type == "cpu"
        and inputs.numel() > 0
        and not (weight.requires_grad and torch.is_grad_enabled())
        and bool(torch.backends.mkldnn.enabled)
        and has_onednn()
    )


class _Product(torch.autograd.Function):
    """A product with weights that take no gradient, forwards and backwards by oneDNN."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _multiply(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _multiply(gradient, weight, None, transposed=True), None, None


@contextmanager
def fast_layers(module: nn.Module) -> Iterator[None]:
    """A block in which a module's linear layers, and GPT-2's transposed ones, multiply as ``linear`` does.

    ``fast_products`` does the same for whatever is called in its block, but looks at every call of torch.
    """
    # A layer with a forward pass of its own has been changed by somebody, to be loaded piece by piece, say.
    layers = [
        part
        for part in module.modules()
        if type(part) in (nn.Linear, Conv1D) and "forward" not in part.__dict__
    ]
    if not torch.backends.mkldnn.enabled or not has_onednn():
        layers = []
    for layer in layers:
        layer.__dict__["forward"] = partial(_apply, layer)
    try:
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _apply(layer: nn.Module, inputs: Tensor) -> Tensor:
    """What a layer's ``forward`` gives."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    bias: Tensor | None = layer.bias  # type: ignore[assignment]
    if torch.is_grad_enabled() or not _asked(inputs, weight):
        found: Tensor = type(layer).forward(layer, inputs)
        return found
    return _multiply(inputs, weight, bias, transposed=type(layer) is Conv1D)


_FAST: ContextVar[bool] = ContextVar("fast", default=False)


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """A block in which every linear layer multiplies as ``linear`` does, whoever calls it.

    For modules of other packages. Layers that take gradients, or are in other types, are left alone.

    Args:
        device: where the block's layers are.
    """
    if _FAST.get() or device.type != "cpu" or not torch.backends.mkldnn.enabled or not has_onednn():
        yield
        return
    token = _FAST.set(True)
    try:
        with _OneDNN():
            yield
    finally:
        _FAST.reset(token)


class _OneDNN(TorchFunctionMode):
    """Puts oneDNN in the place of torch's products of linear layers, and of GPT-2's transposed ones."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        if not torch.is_grad_enabled() and not kwargs:
            if func is functional.linear and _plain(*args[:2]):
                return _multiply(args[0], args[1], args[2] if len(args) > 2 else None)
            if func is torch.addmm and args[0].dim() == 1 and _plain(args[1], args[2]):
                return _multiply(args[1], args[2], args[0], transposed=True)
        return func(*args, **(kwargs or {}))


def _plain(inputs: Tensor, weight: Tensor) -> bool:
    """Whether both are ordinary float32 tensors on the CPU, with something in them."""
    return (
        type(weight) in (Tensor, nn.Parameter)
        and inputs.dtype == weight.dtype == torch.float32
        and inputs.device.type == weight.device.type == "cpu"
        and inputs.layout == weight.layout == torch.strided
        and weight.dim() == 2
        and inputs.numel() > 0
    )


def _multiply(inputs: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool = False) -> Tensor:
    """A product and its bias, by oneDNN.

    Args:
        inputs: (..., in).
        weight: (out, in), or (in, out) if it is transposed.
        bias: (out,) or None.
        transposed: whether the weight is.
    """
    matrix = PACKED.of(weight, transposed)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, matrix, bias, "none", [], "")
    return found

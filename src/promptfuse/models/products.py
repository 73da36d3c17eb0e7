"""Matrix products without gradients, by the faster of torch's two libraries.

For float32 on x86, torch multiplies with MKL, which reaches half the rate of oneDNN on AMD's processors
(98 against 218 GFLOP/s on one Zen 5 core, 1,024 x 512 x 2,048) and the same on Intel's. Torch has both built
in, but asks oneDNN only in compiled models.
"""

from __future__ import annotations

import platform
from functools import cache

import torch
from torch import Tensor, nn


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
    """``module(inputs)``, faster where the module is a plain linear one and no gradient is taken.

    Args:
        module: what is to be applied.
        inputs: (rows, d).
    """
    if (
        type(module) is nn.Linear
        and inputs.device.type == "cpu"
        and inputs.dtype == module.weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and torch.backends.mkldnn.enabled
        and has_onednn()
    ):
        return _multiply(inputs, module.weight, module.bias)
    found: Tensor = module(inputs)
    return found


def _multiply(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return found

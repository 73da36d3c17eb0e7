"""Weights that are no numbers, found before they turn every value into NaN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from promptfuse.errors import ModelError


@torch.no_grad()
def check_finite(module: nn.Module, name: str) -> None:
    """Make sure that all weights are finite numbers, by reading each of them once.

    Args:
        module: the model; its buffers may be infinite, as those of masks are.
        name: what errors call it.

    Raises:
        ModelError: if a weight is NaN or infinite, or has not been loaded at all.
    """
    bad: list[tuple[str, Tensor]] = [
        (key, weight) for key, weight in module.named_parameters() if not _finite(weight)
    ]
    bad += [(key, buffer) for key, buffer in module.named_buffers() if _has_nan(buffer)]
    if not bad:
        return
    key, weight = bad[0]
    if weight.is_meta:
        raise ModelError(f"{name}: {key} has no values (it is on the device meta); load the weights first")
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    # What is finite in wider types overflows in this one.
    narrow = weight.dtype == torch.float16 and not bool(weight.isnan().any())
    remedy = "load it with another dtype" if narrow else "use an undamaged copy of the weights"
    kind = "NaN" if bool(weight.isnan().any()) else "infinity"
    raise ModelError(f"{name}: the weights of {key}{more} hold {kind} in {weight.dtype}; {remedy}")


def _finite(weight: Tensor) -> bool:
    if weight.is_meta:
        return False
    if not weight.is_floating_point() or _quick(weight):
        return True
    return bool((weight.float() if weight.element_size() == 1 else weight).isfinite().all())


def _has_nan(buffer: Tensor) -> bool:
    return (
        buffer.is_floating_point()
        and not buffer.is_meta
        and not _quick(buffer)
        and bool(buffer.isnan().any())
    )


def _quick(tensor: Tensor) -> bool:
    """Whether the sum is finite, for which one pass without a copy is enough; large numbers may overflow."""
    tensor = tensor.float() if tensor.element_size() == 1 else tensor  # PyTorch adds up no numbers of 8 bits.
    return bool(tensor.sum(dtype=torch.float32).isfinite())

"""Weights in the layout that oneDNN multiplies by, beside a module's own.

oneDNN brings the weights of a product into blocks of its own before it multiplies, in every call. Keeping
them so saves a tenth of a product with many rows and half of one with few, for as much memory again as the
weights take, twice as much where gradients are taken. The numbers are the same to the last bit, and those of
a row do not depend on how many rows there are, which without it they do for a single one.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from functools import cached_property
from threading import Lock

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from promptfuse.models.batching import available_bytes


class PackedWeights:
    """Packs weights when they are first asked for, as long as there is room.

    Weights are frozen while a model is wrapped; whoever changes them calls ``drop``.

    Args:
        limit: bytes of packed weights; None for an eighth of the memory that is free at first use, at most
            2 GiB.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        # By identity: tensors compare element by element.
        self._held: MutableMapping[Tensor, dict[bool, Tensor]] = WeakIdKeyDictionary()
        self._lock = Lock()

    @cached_property
    def limit(self) -> int:
        """Bytes of packed weights at the most."""
        if self._limit is not None:
            return self._limit
        return min(2**31, available_bytes(torch.device("cpu")) // 8)

    @property
    def nbytes(self) -> int:
        """Bytes of packed weights now; those of weights that are gone are gone too."""
        with self._lock:
            return self._count()

    def drop(self, weights: Iterable[Tensor]) -> None:
        """Forget what was made of some weights."""
        with self._lock:
            for weight in weights:
                self._held.pop(weight, None)

    def of(self, weight: Tensor, transposed: bool = False) -> Tensor:
        """A weight, or its transpose, packed; as it is where it is no parameter or there is no room.

        Args:
            weight: (out, in) in float32 on the CPU.
            transposed: whether to multiply by (in, out) instead.
        """
        layouts = self._held.get(weight)
        if layouts is not None and transposed in layouts:
            return layouts[transposed]
        plain = weight.t() if transposed else weight
        if not isinstance(weight, nn.Parameter) or not weight.numel():
            return plain
        with self._lock:
            if self._count() + weight.nbytes > self.limit:
                return plain
            found = self._held.setdefault(weight, {})[transposed] = _pack(plain)
        return found

    def _count(self) -> int:
        return sum(
            blocks.numel() * blocks.element_size()
            for layouts in self._held.values()
            for blocks in layouts.values()
        )


@torch.no_grad()
def _pack(plain: Tensor) -> Tensor:
    """A weight, (out, in), in the layout of oneDNN."""
    # The second number is how many rows to expect: the layout is the same for 64 and 1,024 of them.
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(plain.detach().contiguous(), 64)
    return found


PACKED = PackedWeights()
"""Those of this process."""

"""Weights in the layout that oneDNN multiplies by, beside a module's own.

oneDNN brings the weights of a product into blocks of its own before it multiplies, in every call. Keeping
them so saves a tenth of a product with many rows and half of one with few, for as much memory again as the
weights take, twice as much where gradients are taken. The numbers are the same to the last bit, and those of
a row do not depend on how many rows there are, which without it they do for a single one.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from promptfuse.models.batching import available_bytes
from promptfuse.models.fast.probe import element_of


@dataclass(frozen=True)
class _Packed:
    """What was made of a weight.

    Attributes:
        element: a view of one of the weight's numbers.
        state: what the weight was; it is packed anew when that has changed.
        layouts: by whether the weight is transposed, its blocks.
    """

    element: Tensor
    state: tuple[int, int, float]
    layouts: dict[bool, Tensor]

    @classmethod
    def of(cls, weight: Tensor) -> _Packed:
        """Of a weight, with no layout yet."""
        element = element_of(weight)
        return cls(element, _state(weight, element), {})

    def still_holds(self, weight: Tensor) -> bool:
        """Whether the weight is what it was."""
        return self.state == _state(weight, self.element)


def _state(weight: Tensor, element: Tensor) -> tuple[int, int, float]:
    return weight._version, weight.data_ptr(), element.item()


class PackedWeights:
    """Packs weights when they are first asked for, as long as there is room.

    Args:
        limit: bytes of packed weights; None for an eighth of the memory that is free at first use, at most
            2 GiB.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        # By identity: tensors compare element by element.
        self._held: MutableMapping[Tensor, _Packed] = WeakIdKeyDictionary()
        self._reserved: MutableMapping[object, int] = WeakKeyDictionary()
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

    def reserve(self, owner: object, nbytes: int) -> bool:
        """Count packed weights that an object keeps itself, as long as it lives.

        Args:
            owner: the object.
            nbytes: of all its weights.

        Returns:
            Whether there is room. If there is none, the object has what it had before.
        """
        with self._lock:
            had = self._reserved.get(owner, 0)
            if nbytes > had and self._count() + nbytes - had > self.limit:
                return False
            self._reserved[owner] = nbytes
        return True

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
        plain = weight.t() if transposed else weight
        if not isinstance(weight, nn.Parameter) or weight.is_inference() or not weight.numel():
            return plain
        packed = self._held.get(weight)
        if packed is not None and packed.still_holds(weight):
            found = packed.layouts.get(transposed)
            if found is not None:
                return found
        with self._lock:
            if packed is None or not packed.still_holds(weight):
                packed = self._held[weight] = _Packed.of(weight)
            if self._count() + weight.nbytes > self.limit:
                return plain
            found = packed.layouts[transposed] = pack(plain)
        return found

    def _count(self) -> int:
        for weight in list(self._held):
            # Moved elsewhere, or made another type: as it is it will not be asked for.
            if weight.dtype != torch.float32 or weight.device.type != "cpu":
                del self._held[weight]
        return sum(self._reserved.values()) + sum(
            blocks.numel() * blocks.element_size()
            for packed in self._held.values()
            for blocks in packed.layouts.values()
        )


@torch.no_grad()
def pack(plain: Tensor) -> Tensor:
    """A weight, (out, in), in the layout of oneDNN."""
    # The second number is how many rows to expect: the layout is the same for 64 and 1,024 of them.
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(plain.detach().contiguous(), 64)
    return found


PACKED = PackedWeights()
"""Those of this process."""

"""Whether parameters have changed since they were last looked at."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch import stack as stacked


def element_of(parameter: Tensor) -> Tensor:
    """A view of one element in the middle of a parameter, ().

    PyTorch counts changes of a parameter itself, but neither those by ``parameter.data`` nor those of fused
    optimizers. An element finds whatever changes all of them.
    """
    return parameter.detach()[tuple(size // 2 for size in parameter.shape)]


def version_of(parameter: Tensor) -> int:
    """How often PyTorch says that a parameter has changed."""
    return 0 if parameter.is_inference() else parameter._version


class ModuleProbe:
    """Looks at the parameters of a module.

    Args:
        module: the module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._tables: list[dict[str, Any]] = []
        self._held: list[Any] = []
        self._ids: list[int] = []
        self._parameters: list[Tensor] = []
        self._where: list[int] = []
        self._elements: list[Tensor] = []
        self._alike = False

    def state(self) -> tuple[object, ...]:
        """Something that is equal as long as no parameter or module has been changed, moved or replaced."""
        # This is asked in every pass. What the modules hold is compared by identity, as tensors have to be.
        if not self._tables or self._ids != [id(one) for table in self._tables for one in table.values()]:
            self._walk()
        where = [one.data_ptr() for one in self._parameters]
        if where != self._where:
            self._where = where
            self._elements = [element_of(one) for one in self._parameters if not one.is_meta]
            self._alike = len({(one.dtype, one.device) for one in self._elements}) == 1
        versions = sum(map(version_of, self._parameters))
        return tuple(self._ids), tuple(where), versions, self._values()

    def _walk(self) -> None:
        """Find the modules' tables of parameters and of modules, what they hold, and the parameters."""
        parts = list(self.module.modules())
        self._tables = [table for part in parts for table in (part._parameters, part._modules)]
        self._held = [one for table in self._tables for one in table.values()]
        self._ids = [*map(id, self._held)]
        self._parameters = [one for one in self.module.parameters() if one.numel()]

    def _values(self) -> tuple[float | None, ...]:
        alike = self._alike
        values = stacked(self._elements).tolist() if alike else [one.item() for one in self._elements]
        # What is no number would never be equal to itself.
        return tuple(None if math.isnan(value) else value for value in values)

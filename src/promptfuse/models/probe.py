"""Whether parameters have changed since they were last looked at."""

from __future__ import annotations

import math

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
        self._where: list[tuple[int, int]] = []
        self._elements: list[Tensor] = []

    def state(self) -> tuple[object, ...]:
        """Something that is equal as long as no parameter has been changed, moved or replaced."""
        # As ``module.parameters()`` finds them, in a tenth of the time: this is asked in every pass.
        parameters: list[Tensor] = []
        waiting = [self.module]
        while waiting:
            part = waiting.pop()
            parameters += [one for one in part._parameters.values() if one is not None and one.numel()]
            waiting += [child for child in part._modules.values() if child is not None]
        where = [(id(one), one.data_ptr()) for one in parameters]
        if where != self._where:
            self._where = where
            self._elements = [element_of(one) for one in parameters if not one.is_meta]
        return tuple(where), sum(map(version_of, parameters)), self._values()

    def _values(self) -> tuple[float | None, ...]:
        kinds = {(one.dtype, one.device) for one in self._elements}
        if len(kinds) == 1:
            values = stacked(self._elements).tolist()
        else:
            values = [one.item() for one in self._elements]
        # What is no number would never be equal to itself.
        return tuple(None if math.isnan(value) else value for value in values)

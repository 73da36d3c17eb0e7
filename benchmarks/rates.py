"""How fast a machine multiplies: the best rate seen at any shape, which a floor is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from promptfuse.models.fast.products import fast_linear

Clock = Callable[[], float]


def best_seconds(run: Callable[[], Any], repeats: int, clock: Clock) -> float:
    """The least time of a few runs behind one that does not count."""
    run()
    taken = []
    for _ in range(repeats):
        started = clock()
        run()
        taken.append(clock() - started)
    return max(min(taken), 1e-9)


Shape = tuple[int, int, int]
"""Rows, width of the inputs, and width of the outputs, of a product."""

LIBRARIES: dict[str, Callable[[torch.nn.Linear, Tensor], Tensor]] = {
    "torch": lambda module, inputs: module(inputs),
    "oneDNN": fast_linear,
}


class Work:
    """Products that a machine's rate is measured at.

    Args:
        name: what they are.
        products: their shapes.
    """

    def __init__(self, name: str, products: Sequence[Shape]) -> None:
        self.name = name
        self.flops = sum(2 * rows * narrow * wide for rows, narrow, wide in products)
        self.layers = [
            (torch.nn.Linear(narrow, wide).requires_grad_(False), torch.randn(rows, narrow))
            for rows, narrow, wide in products
        ]

    @torch.no_grad()
    def rate(self, library: str, clock: Clock, repeats: int = 5) -> float:
        """The best FLOP/s of a few runs."""
        product = LIBRARIES[library]

        def run() -> None:
            for module, inputs in self.layers:
                product(module, inputs)

        return self.flops / best_seconds(run, repeats, clock)


class Rates:
    """The best rates seen so far.

    Args:
        works: what is measured, once by each library now.
        clock: seconds.
    """

    def __init__(self, works: Sequence[Work], clock: Clock) -> None:
        self.clock = clock
        self.seen = {(work, library): work.rate(library, clock, 9) for work in works for library in LIBRARIES}
        self.fastest = sorted(self.seen, key=lambda pair: -self.seen[pair])[:3]

    def again(self) -> None:
        """Measure the fastest ones once more."""
        for work, library in self.fastest:
            rate = work.rate(library, self.clock, 3)
            self.seen[work, library] = max(self.seen[work, library], rate)

    def best(self, library: str = "") -> tuple[float, str]:
        """The best FLOP/s of a library, or of all, and at what it was seen."""
        found = {pair: rate for pair, rate in self.seen.items() if library in ("", pair[1])}
        work, by = max(found, key=lambda pair: found[pair])
        return found[work, by], f"{work.name}, {by}"


def floor_rate(best: tuple[float, str], steps: Sequence[tuple[float, float]]) -> tuple[float, str]:
    """The best rate of all, the steps' own included: no step is faster than its floor.

    Args:
        best: FLOP/s of the products that were measured by themselves, and what they are.
        steps: seconds and products of each step.
    """
    own = max(flops / seconds for seconds, flops in steps)
    return (own, "a step itself") if own > best[0] else best


class ShapesOf(TorchDispatchMode):
    """Counts the shapes of the products in its block."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[Shape] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count a product, and do whatever was asked."""
        del types
        name = func.name()
        if name in ("aten::mm", "aten::addmm"):
            inputs, weight = args[-2:]
            self.counted[(inputs.shape[0], *weight.shape)] += 1
        elif name == "mkldnn::_linear_pointwise":
            inputs, weight = args[:2]
            narrow = inputs.shape[-1]
            self.counted[inputs.numel() // narrow, narrow, weight.shape[0]] += 1
        return func(*args, **(kwargs or {}))

    def dearest(self, count: int) -> list[Shape]:
        """The shapes that cost most in all."""

        def cost(shape: Shape) -> int:
            return self.counted[shape] * shape[0] * shape[1] * shape[2]

        return sorted(self.counted, key=cost, reverse=True)[:count]

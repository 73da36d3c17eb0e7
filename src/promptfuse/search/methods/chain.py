"""Methods in sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from promptfuse.search.methods.base import Method, at_least, require
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.proposer import Proposer
from promptfuse.search.methods.registry import methods


@methods.register("Chain")
@dataclass(frozen=True, init=False)
class Chain(Method):
    """Methods in sequence: each continues from the best texts of the one before.

        Chain(AutoDAN(candidates=64), Polish(), steps=(16, 8))

    Attributes:
        methods: the methods in order; a chain among them is flattened.
        steps: the most steps of each; None for those of the search's ``Stopping``.
    """

    methods: tuple[Method, ...]
    steps: tuple[int, ...] | None

    def __init__(self, *methods: Method, steps: tuple[int, ...] | list[int] | None = None) -> None:
        flat: list[Method] = []
        for method in methods:
            if isinstance(method, Chain):
                require(
                    method.steps is None,
                    "steps: set them on the outermost chain only, one number for each method",
                )
                flat.extend(method.methods)
            else:
                flat.append(method)
        require(bool(flat), "a chain needs at least one method")
        if steps is not None:
            require(
                len(steps) == len(flat),
                f"steps: {len(steps)} numbers for {len(flat)} methods; give one for each",
            )
            for number in steps:
                at_least("steps", number)
        object.__setattr__(self, "methods", tuple(flat))
        object.__setattr__(self, "steps", None if steps is None else tuple(steps))

    @property
    def stages(self) -> tuple[Method, ...]:
        """The methods of the chain."""
        return self.methods

    @property
    def stage_steps(self) -> tuple[int, ...] | None:
        """The most steps of each method, as given."""
        return self.steps

    def describe(self) -> dict[str, Any]:
        """The settings of all methods, as plain values."""
        parts = [method.describe() for method in self.methods]
        return {"name": "Chain", "methods": parts, "steps": self.steps}

    def proposer(self, context: SearchContext) -> Proposer:
        """The first method's; the search asks each of ``stages`` for its own."""
        return self.methods[0].proposer(context)

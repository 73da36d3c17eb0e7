"""Black box: any function of a text as a term."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from promptfuse.adapters import SlotGradient
from promptfuse.errors import ConfigError
from promptfuse.models import Batch
from promptfuse.objectives.base import Term
from promptfuse.objectives.registry import terms


@terms.register("BlackBox")
class BlackBox(Term):
    """What a function gives for a text; lower is better.

    It ranks finished texts, and gives no gradient to propose words by.

    Args:
        function: from a text to a number; with ``batched``, from a list of texts to as many numbers. The
            number of a text must not depend on the other texts of the list.
        weight: see ``Term``.
        batched: whether the function takes lists.
        prefix: see ``Term``.
        suffix: see ``Term``.
        name: see ``Term``.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        weight: float = 1.0,
        *,
        batched: bool = False,
        prefix: str = "",
        suffix: str = "",
        name: str = "blackbox",
    ) -> None:
        super().__init__(None, weight, prefix, suffix, name)
        if not callable(function):
            raise ConfigError(
                f"{name}: {type(function).__name__} is not a function; give one that takes a text"
            )
        self.function = function
        self.batched = batched

    @property
    def has_gradient(self) -> bool:
        """Never."""
        return False

    def describe(self) -> dict[str, Any]:
        """What decides the losses, in plain values; the function by its name only."""
        named = self.function if hasattr(self.function, "__qualname__") else type(self.function)
        function = f"{named.__module__}.{named.__qualname__}"
        return {**super().describe(), "function": function, "batched": self.batched}

    def exact(self, text: str) -> float:
        """What the function gives for a text.

        Raises:
            ConfigError: if the function gives no finite number.
        """
        return self._call([text])[0]

    def score(
        self,
        texts: Sequence[str],
        batch_size: int | None = None,
        parents: Sequence[str] | None = None,
    ) -> Float[Tensor, "{len(texts)}"]:
        """What the function gives for texts, (len(texts),), in float64; ``parents`` are not used."""
        del parents
        step = batch_size or max(1, len(texts))
        found = [
            loss for start in range(0, len(texts), step) for loss in self._call(texts[start : start + step])
        ]
        return torch.tensor(found, dtype=torch.float64)

    def outputs(self, batch: Batch) -> Num[Tensor, "rows *_"]:
        """Not for a function of strings."""
        raise ConfigError(f"the term {self.name} reads strings, not tokens; use score")

    def slot_gradient(
        self, texts: Sequence[str], probe: Float[Tensor, "{len(texts)} d"], slots: int
    ) -> SlotGradient:
        """Not for a function of strings."""
        raise ConfigError(f"the term {self.name} has no gradient; ask has_gradient first")

    def _call(self, texts: Sequence[str]) -> list[float]:
        """The function's numbers, checked."""
        wrapped = [self.wrap(text) for text in texts]
        answers = self.function(wrapped) if self.batched else [self.function(text) for text in wrapped]
        try:
            found = [float(answer) for answer in answers]
        except (TypeError, ValueError):
            raise ConfigError(
                f"{self.name}: the function returned {answers!r:.80} for {wrapped[0]!r}; return a number"
            ) from None
        if len(found) != len(texts):
            raise ConfigError(
                f"{self.name}: the function returned {len(found)} numbers for {len(texts)} texts; return "
                "one each"
            )
        for text, loss in zip(texts, found, strict=True):
            if not math.isfinite(loss):
                raise ConfigError(
                    f"{self.name}: the function returned {loss} for {text!r}; return a finite number"
                )
        return found

"""When a search ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from promptfuse._utils.values import whole_number
from promptfuse.errors import ConfigError
from promptfuse.objectives import Objective, TargetContinuation
from promptfuse.search.hypothesis import Proposal


@dataclass(frozen=True)
class Stopping:
    """A search ends as soon as one of these is reached.

    Attributes:
        steps: the most steps; of a chain, of each of its methods.
        patience: steps without a better complete text, counted from the first complete one; of a chain,
            for each of its methods. Steps that leave a growing text better than it do not count.
        seconds: wall time, checked after every step; results then depend on the machine.
        evaluations: texts scored exactly; the last step's proposals are cut so that it is never exceeded.
        value: stop once a complete text has this value or a lower one.
        early_stop: stop once the models of all ``TargetContinuation`` terms with a positive weight continue
            the best complete text with one of their targets, taking the likeliest tokens.

    Raises:
        ConfigError: if a number is out of range.
    """

    steps: int = 16
    patience: int = 4
    seconds: float | None = None
    evaluations: int | None = None
    value: float | None = None
    early_stop: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "patience", "evaluations"):
            number = getattr(self, name)
            if number is not None:
                whole_number(number, name)
        for name in ("seconds", "value"):
            number = getattr(self, name)
            if number is not None and (isinstance(number, bool) or not isinstance(number, Real)):
                raise ConfigError(f"{name}: {number!r:.60} is not a number; give one")
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigError(f"seconds: must be above 0, got {self.seconds}")
        if self.value is not None and not math.isfinite(self.value):
            raise ConfigError(f"value: {self.value} is not a finite number; give one")

    def reached(self, seconds: float, evaluations: int, value: float | None) -> bool:
        """Whether a limit of the whole search is reached.

        Args:
            seconds: spent so far.
            evaluations: made so far.
            value: of the best complete text, None if there is none.
        """
        return (
            (self.seconds is not None and seconds >= self.seconds)
            or (self.evaluations is not None and evaluations >= self.evaluations)
            or (self.value is not None and value is not None and value <= self.value)
        )


def wanted_continuations(objective: Objective) -> dict[str, TargetContinuation]:
    """The terms that an early stop looks at, by name.

    Raises:
        ConfigError: if there are none.
    """
    found = {
        name: term
        for name, term in objective.terms.items()
        if isinstance(term, TargetContinuation) and term.weight > 0
    }
    if not found:
        raise ConfigError(
            "early_stop: it needs a term with a target; add a TargetContinuation or leave it out"
        )
    return found


def stopping_of(
    stopping: Stopping | None, steps: int | None, patience: int | None, early_stop: bool | None = None
) -> Stopping:
    """The rule given, or the one of these numbers.

    Raises:
        ConfigError: if a number is given twice.
    """
    named: dict[str, Any] = {"steps": steps, "patience": patience, "early_stop": early_stop}
    given = {name: value for name, value in named.items() if value is not None}
    if stopping is None:
        return Stopping(**given)
    if given:
        raise ConfigError(f"{next(iter(given))} is given twice; give it in stopping only")
    return stopping


def shared_out(proposals: Sequence[Proposal], most: int) -> list[Proposal]:
    """The ``most`` first proposals, one of each beam in turn, in their old order."""
    ranks: dict[int, int] = {}
    keyed = []
    for index, item in enumerate(proposals):
        rank = ranks.get(item.parent, 0)
        ranks[item.parent] = rank + 1
        # Starts are scored before anything that comes from them.
        keyed.append((item.parent >= 0, rank, index))
    return [proposals[index] for index in sorted(index for _, _, index in sorted(keyed)[:most])]

"""Strategies: which texts a step starts from, independent of the methods that propose texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, ClassVar

from promptfuse._utils.registry import Registry
from promptfuse.errors import ConfigError
from promptfuse.search.hypothesis import Hypothesis

strategies: Registry[type[Strategy]] = Registry(
    "strategy",
    "promptfuse.strategies",
    dict.fromkeys(("BeamSearch", "Greedy", "UniformCost"), "promptfuse.search.strategies"),
)
"""The strategies; a name is what YAML files call the ``kind`` of a strategy."""


class Strategy(ABC):
    """Selects the texts that a step starts from: a frozen dataclass of settings that makes a selector.

    Subclass it as ``Method``; ``@strategies.register("Name")`` or an entry point of the group
    ``promptfuse.strategies`` gives it a name in YAML files too.

    Attributes:
        width: how many texts a step starts from.
        fixed: fields that YAML files cannot set.
    """

    width: int
    fixed: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def selector(self, met: Callable[[str], int], keep: Callable[[str], bool]) -> Selector:
        """What applies the strategy.

        Args:
            met: how much of the required phrases a text has.
            keep: whether a text may be selected.
        """


@strategies.register("BeamSearch")
@dataclass(frozen=True)
class BeamSearch(Strategy):
    """Keep the ``width`` best distinct texts of each step.

    Attributes:
        width: the paper's number is 4.
        diverse: what a text's value is raised by, in ranking, for every better sibling from the same
            beam (Li, Monroe and Jurafsky, 2016, arXiv 1611.08562, section 3.1); 0 ranks by value alone.
        margin: texts whose value exceeds that of the best complete text by more than this are dropped, as
            in absolute threshold pruning (Freitag and Al-Onaizan, 2017, arXiv 1702.01806, section
            3); None for no limit. In units of the objective's value.
    """

    width: int = 4
    diverse: float = 0.0
    margin: float | None = None

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"beams: must be at least 1, got {self.width}")
        if not 0 <= self.diverse < float("inf"):
            raise ConfigError(f"diverse: {self.diverse} is out of range; give 0 or more")
        if self.margin is not None and not 0 <= self.margin < float("inf"):
            raise ConfigError(f"margin: {self.margin} is out of range; give 0 or more, or leave it out")

    def selector(self, met: Callable[[str], int], keep: Callable[[str], bool]) -> BeamSelector:
        """What keeps the best of each step."""
        return BeamSelector(self, met, keep)


@strategies.register("Greedy")
@dataclass(frozen=True)
class Greedy(BeamSearch):
    """Keep the single best text of each step."""

    width: int = 1
    fixed: ClassVar[tuple[str, ...]] = ("width", "diverse", "margin")


@strategies.register("UniformCost")
@dataclass(frozen=True)
class UniformCost(Strategy):
    """Continue from the cheapest text seen so far, wherever in the search it stands.

    Best-first search over a priority queue; the cost of a text is its value. A text is extended once.

    Attributes:
        width: texts taken from the queue in each step.
        frontier: the most texts that wait in the queue; the costliest are forgotten.
    """

    width: int = 1
    frontier: int = 256

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"width: must be at least 1, got {self.width}")
        if self.frontier < self.width:
            raise ConfigError(f"frontier: {self.frontier} is less than the width; give {self.width} or more")

    def selector(self, met: Callable[[str], int], keep: Callable[[str], bool]) -> QueueSelector:
        """What keeps a queue of all that wait."""
        return QueueSelector(self, met, keep)


class Selector(ABC):
    """Applies a strategy.

    Args:
        width: how many texts a step starts from.
        met: how much of the required phrases a text has. Texts that have different parts of them do not
            compete: places are dealt out in turn, as in grid beam search (Hokamp and Liu, 2017).
        keep: whether a text may be selected; asked in the order of the ranking, and no more often
            than needed.

    Attributes:
        stateful: whether a text may be selected again: it leads to other texts if the method has a state
            of its own.
    """

    def __init__(self, width: int, met: Callable[[str], int], keep: Callable[[str], bool]) -> None:
        self.stateful = False
        self.width = width
        self.met = met
        self.keep = keep

    @abstractmethod
    def select(
        self, parents: Sequence[Hypothesis], children: Sequence[Hypothesis], best: float | None = None
    ) -> list[Hypothesis]:
        """The texts that the next step starts from, best first.

        Args:
            parents: those that may be selected again.
            children: those that are new.
            best: the value of the best complete text; None if there is none yet.
        """

    @property
    def waiting(self) -> bool:
        """Whether other texts wait besides those that were selected last."""
        return False

    def revalue(self, revalued: Callable[[Iterable[Hypothesis]], list[Hypothesis]]) -> None:
        """Update the values of waiting texts, after the best losses seen have changed."""
        del revalued

    def state_dict(self) -> dict[str, Any]:
        """What a resumed search needs; JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        del state

    def _ranked(self, items: Iterable[Hypothesis], cost: Callable[[Hypothesis], float]) -> list[Hypothesis]:
        """By cost; where phrases are required, the best of each group in turn, the fullest group first."""
        groups: dict[int, list[Hypothesis]] = {}
        for item in sorted(items, key=cost):
            groups.setdefault(self.met(item.text), []).append(item)
        columns = [groups[number] for number in sorted(groups, reverse=True)]
        return [item for row in zip_longest(*columns) for item in row if item is not None]

    def _taken(self, ranked: Sequence[Hypothesis]) -> list[Hypothesis]:
        taken: list[Hypothesis] = []
        for item in ranked:
            if len(taken) == self.width:
                break
            if self.keep(item.text):
                taken.append(item)
        return taken


class BeamSelector(Selector):
    """The best of each step."""

    def __init__(self, strategy: BeamSearch, met: Callable[[str], int], keep: Callable[[str], bool]) -> None:
        super().__init__(strategy.width, met, keep)
        self.diverse = strategy.diverse
        self.margin = strategy.margin

    def select(
        self, parents: Sequence[Hypothesis], children: Sequence[Hypothesis], best: float | None = None
    ) -> list[Hypothesis]:
        """The best of parents and children, within the margin of the best complete text."""
        limit = float("inf") if best is None or self.margin is None else best + self.margin
        pool = {item.text: item for item in (*parents, *children) if item.value <= limit}
        if not self.diverse:
            return self._taken(self._ranked(pool.values(), lambda item: item.value))
        siblings: dict[str, int] = {}
        cost: dict[str, float] = {}
        for item in sorted(pool.values(), key=lambda item: item.value):
            rank = siblings.get(item.parent, 0)
            siblings[item.parent] = rank + 1
            cost[item.text] = item.value + self.diverse * rank
        taken = self._taken(self._ranked(pool.values(), lambda item: cost[item.text]))
        return sorted(taken, key=lambda item: item.value)


class QueueSelector(Selector):
    """The best of all that wait."""

    def __init__(self, strategy: UniformCost, met: Callable[[str], int], keep: Callable[[str], bool]) -> None:
        super().__init__(strategy.width, met, keep)
        self.frontier = strategy.frontier
        self.queue: list[Hypothesis] = []
        self.taken: set[str] = set()

    def select(
        self, parents: Sequence[Hypothesis], children: Sequence[Hypothesis], best: float | None = None
    ) -> list[Hypothesis]:
        """The best of all that wait; a parent is not selected again."""
        del best
        self.taken |= {item.text for item in parents}
        waiting = {item.text: item for item in self.queue}
        for item in children:
            if self.stateful or item.text not in self.taken:
                waiting.setdefault(item.text, item)
        ranked = self._ranked(waiting.values(), lambda item: item.value)
        chosen = self._taken(ranked)
        last = ranked.index(chosen[-1]) + 1 if len(chosen) == self.width else len(ranked)
        self.queue = ranked[last:][: self.frontier]
        self.taken |= {item.text for item in chosen}
        return chosen

    @property
    def waiting(self) -> bool:
        """Whether the queue has texts left."""
        return bool(self.queue)

    def revalue(self, revalued: Callable[[Iterable[Hypothesis]], list[Hypothesis]]) -> None:
        """Update the values of the queue."""
        self.queue = revalued(self.queue)

    def state_dict(self) -> dict[str, Any]:
        """The queue and the texts that left it."""
        return {"queue": [item.to_dict() for item in self.queue], "taken": sorted(self.taken)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.queue = [Hypothesis.from_dict(item) for item in state["queue"]]
        self.taken = set(state["taken"])

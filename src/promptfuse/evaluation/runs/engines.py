"""What computes groups: this process, several of this machine, or workers on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from promptfuse._utils.memory import keep_memory_flat
from promptfuse.evaluation.predictions import Prediction
from promptfuse.evaluation.recipes import Recipe
from promptfuse.evaluation.runs.config import EngineSettings
from promptfuse.evaluation.runs.groups import (
    Group,
    Work,
    describe_group,
    torch_threads,
)

OnLine = Callable[[Prediction], None]
OnGroup = Callable[[Work], None]


class Engine(Protocol):
    """Computes groups, wherever that is."""

    def load(self) -> dict[str, dict[str, str]]:
        """Load the models; name, fingerprint and identity of each, by role."""

    def run(self, groups: Sequence[Group], on_line: OnLine, on_group: OnGroup) -> None:
        """Describe groups.

        Args:
            groups: in any order.
            on_line: called with each prediction as soon as it is known, by one thread at a time.
            on_group: called when all lines of a group are known.
        """


class LocalEngine:
    """Computes groups in this process, one behind the other.

    Args:
        recipe: how photos are described.
        device: where the models go.
        threads: that torch uses.
    """

    def __init__(self, recipe: Recipe, device: str, threads: int) -> None:
        self.describer = recipe.build(device)
        self.threads = threads

    def load(self) -> dict[str, dict[str, str]]:
        """See ``Engine``."""
        keep_memory_flat()
        self.describer.load()
        return self.describer.models()

    def run(self, groups: Sequence[Group], on_line: OnLine, on_group: OnGroup) -> None:
        """See ``Engine``."""
        with torch_threads(self.threads):
            for group in groups:
                on_group(describe_group(self.describer, group, on_line))


def make_engine(settings: EngineSettings, recipe: Recipe, device: str, threads: int) -> Engine:
    """The engine that is asked for."""
    if settings.kind == "ray":
        from promptfuse.evaluation.runs.ray_engine import RayEngine

        return RayEngine(recipe, device, threads, settings)
    if settings.workers > 1:
        from promptfuse.evaluation.runs.local_workers import LocalWorkersEngine

        return LocalWorkersEngine(recipe, device, threads, settings.workers)
    return LocalEngine(recipe, device, threads)

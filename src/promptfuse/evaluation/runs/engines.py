"""What computes groups: this process, several of this machine, or workers on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from promptfuse._utils.memory import keep_memory_flat
from promptfuse._utils.processes import BrokenProcessPool, map_in_processes
from promptfuse.errors import ConfigError
from promptfuse.evaluation.recipes import Recipe, describe
from promptfuse.evaluation.runs.config import EngineSettings
from promptfuse.evaluation.runs.group_worker import (
    Answer,
    GroupWorker,
    Models,
    OnGroup,
    OnLine,
    deliver_answer,
    models_of,
)
from promptfuse.evaluation.runs.groups import Group, describe_group, torch_threads
from promptfuse.models.loading import check_device

MOST_KILLS = 3
"""How often in a row workers may be killed before any of them has described a group."""


class Engine(Protocol):
    """Computes groups, wherever that is."""

    def load(self) -> Models:
        """Load the models; name, fingerprint and identity of each, by role."""

    def run(self, groups: Sequence[Group], on_line: OnLine, on_group: OnGroup) -> None:
        """Describe groups.

        Args:
            groups: in any order.
            on_line: called with each prediction as soon as it is known, by one thread at a time.
            on_group: called when all lines of a group are known.

        Raises:
            PromptfuseError: what a worker ended with.
            ConfigError: if the workers fail.
        """


class LocalEngine:
    """Computes groups in this process, one after the other.

    Args:
        recipe: how photos are described.
        device: where the models go.
        threads: that torch uses.
    """

    def __init__(self, recipe: Recipe, device: str, threads: int) -> None:
        self.describer = recipe.build(device)
        self.threads = threads

    def load(self) -> Models:
        """Load the models on the device; name, fingerprint and identity of each, by role."""
        keep_memory_flat()
        self.describer.load()
        return self.describer.models()

    def run(self, groups: Sequence[Group], on_line: OnLine, on_group: OnGroup) -> None:
        """Describe groups; predictions are known photo by photo."""
        with torch_threads(self.threads):
            for group in groups:
                on_group(describe_group(self.describer, group, on_line))


class ProcessEngine:
    """Computes groups in processes that it starts, each with models of its own.

    Where one is killed, all are started again, and go on with the groups that are missing.

    Args:
        recipe: how photos are described.
        device: where the workers' models go.
        threads: that torch uses in each worker.
        workers: how many there are.
    """

    def __init__(self, recipe: Recipe, device: str, threads: int, workers: int) -> None:
        self.recipe, self.device, self.threads, self.workers = recipe, device, threads, workers
        self.models: Models = {}

    def load(self) -> Models:
        """Load the models on the CPU, only to know them; name, fingerprint and identity, by role."""
        check_device(self.device)
        self.models = models_of(self.recipe)
        return self.models

    def run(self, groups: Sequence[Group], on_line: OnLine, on_group: OnGroup) -> None:
        """Describe groups; predictions are known group by group.

        Raises:
            PromptfuseError: what a worker ended with.
            ConfigError: if workers are killed again and again.
        """
        missing = {group.number: group for group in groups}
        kills = 0
        while missing:
            before = len(missing)
            try:
                self._describe(missing, on_line, on_group)
            except BrokenProcessPool:
                kills = kills + 1 if len(missing) == before else 1
                if kills >= MOST_KILLS:
                    raise ConfigError(
                        f"{self.workers} workers: one was killed {kills} times before a group was done, for "
                        "want of memory maybe; give fewer workers and run the same command to resume"
                    ) from None

    def _describe(self, missing: dict[int, Group], on_line: OnLine, on_group: OnGroup) -> None:
        """Describe groups, and take those that are done out of the missing ones."""
        groups = list(missing.values())

        def deliver(number: int, answer: Answer) -> None:
            deliver_answer(answer, on_line, on_group)
            del missing[groups[number].number]

        map_in_processes(
            partial(GroupWorker, describe(self.recipe), self.device, self.threads, self.models),
            groups,
            deliver,
            count=min(self.workers, len(groups)),
            threads=self.threads,
        )


def make_engine(settings: EngineSettings, recipe: Recipe, device: str, threads: int) -> Engine:
    """The engine that is asked for.

    Args:
        settings: its kind, and how many workers it has.
        recipe: how photos are described.
        device: where the models go.
        threads: that torch uses in each process.
    """
    if settings.kind == "ray":
        from promptfuse.evaluation.runs.ray_engine import RayEngine

        return RayEngine(recipe, device, threads, settings)
    if settings.workers > 1:
        return ProcessEngine(recipe, device, threads, settings.workers)
    return LocalEngine(recipe, device, threads)

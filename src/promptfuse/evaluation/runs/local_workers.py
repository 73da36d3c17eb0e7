"""Groups of photos on several processes of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from promptfuse._utils.processes import BrokenProcessPool, processes
from promptfuse.errors import ConfigError
from promptfuse.evaluation.recipes import Recipe, describe
from promptfuse.evaluation.runs.engines import OnGroup, OnLine
from promptfuse.evaluation.runs.group_worker import GroupWorker, Models, group_to_json, models_of, take
from promptfuse.evaluation.runs.groups import Group
from promptfuse.models.loading import check_device

MOST_KILLS = 3
"""How often in a row workers may be killed before any of them has described a group."""


class LocalWorkersEngine:
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
        """See ``Engine``; here only to know the models, so on the CPU."""
        check_device(self.device)
        self.models = models_of(self.recipe)
        return self.models

    def run(self, groups: Sequence[Group], on_line: OnLine, on_group: OnGroup) -> None:
        """See ``Engine``.

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
                        "want of memory maybe; give fewer workers, the same command goes on"
                    ) from None

    def _describe(self, missing: dict[int, Group], on_line: OnLine, on_group: OnGroup) -> None:
        """Describe groups, and take those that are done out of the missing ones."""
        waiting = iter(list(missing.values()))
        under_way: dict[Future[dict[str, str]], int] = {}
        begin = (describe(self.recipe), self.device, self.threads, self.models)
        with processes(min(self.workers, len(missing)), self.threads, _begin, *begin) as pool:
            while missing:
                # A few more than there are workers, so that none waits; not all, since there may be many.
                while len(under_way) < 2 * self.workers and (group := next(waiting, None)) is not None:
                    under_way[pool.submit(_work, group_to_json(group))] = group.number
                for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                    take(done.result(), on_line, on_group)
                    del missing[under_way.pop(done)]


_WORKER: list[GroupWorker] = []
"""That of a worker's process."""


def _begin(recipe: dict[str, Any], device: str, threads: int, models: Models) -> None:
    """What a worker begins with."""
    _WORKER[:] = [GroupWorker(recipe, device, threads, models)]


def _work(group: str) -> dict[str, str]:
    """Describe a group in a worker."""
    return _WORKER[0]({"group": group})

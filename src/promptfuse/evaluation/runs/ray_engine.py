"""Groups of photos on a Ray cluster: Ray Data hands them to a pool of workers with a set of models each.

Only the process that started the run writes its files, so there is one writer, as in a local run. Photos do
not travel: each worker opens those of its groups by their paths or addresses.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from tempfile import TemporaryDirectory
from typing import Any

from promptfuse._utils.messages import one_line
from promptfuse.errors import ConfigError, PromptfuseError
from promptfuse.evaluation.recipes import Recipe, describe
from promptfuse.evaluation.runs.config import EngineSettings
from promptfuse.evaluation.runs.group_worker import (
    Answer,
    GroupWorker,
    Models,
    OnGroup,
    OnLine,
    answer_from_json,
    answer_to_json,
    deliver_answer,
    group_from_json,
    group_to_json,
    models_of,
)
from promptfuse.evaluation.runs.groups import Group

MOST_BLOCKS = 10_000
"""Ray Data takes this many blocks of work without effort; with more groups, a block has several."""

STORE_BYTES = 256 * 2**20
"""For Ray's object store, where there is no cluster yet: it holds only groups and lines."""

LONGEST_FOLDER = 34
"""Bytes of the path of the folder below which Ray has its sockets: theirs, some 70 longer, may have 107."""

SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
"""Where there may be room for Ray's files instead."""


class RayGroupWorker(GroupWorker):
    """A `GroupWorker` for rows of Ray Data, to which the package's own errors are answers too."""

    def __call__(self, row: dict[str, str]) -> dict[str, str]:  # type: ignore[override]
        """Describe the group of a row."""
        try:
            answer: Answer | PromptfuseError = super().__call__(group_from_json(row["group"]))
        except PromptfuseError as error:
            answer = error
        return {"answer": answer_to_json(answer)}


class RayEngine:
    """Computes groups on Ray; on the cluster of ``RAY_ADDRESS``, else on one of this machine's own.

    Args:
        recipe: how photos are described.
        device: where the workers' models go.
        threads: that torch uses in each worker.
        settings: how many workers there are, and what they may use.

    Raises:
        ConfigError: if Ray is not installed, or workers would see no GPU.
    """

    def __init__(self, recipe: Recipe, device: str, threads: int, settings: EngineSettings) -> None:
        try:
            import ray.data  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"engine ray: {error.name} is not installed; pip install 'promptfuse[ray]'"
            ) from None
        if device.startswith("cuda") and not settings.gpus_per_worker:
            raise ConfigError(
                f"device {device}: Ray workers get no GPU by default; set engine.gpus_per_worker, e.g. 0.5"
            )
        self.recipe, self.device, self.threads, self.settings = recipe, device, threads, settings
        self.models: Models = {}

    def load(self) -> Models:
        """Load the models on the CPU, only to know them; name, fingerprint and identity, by role."""
        self.models = models_of(self.recipe)
        return self.models

    def run(self, groups: Sequence[Group], on_line: OnLine, on_group: OnGroup) -> None:
        """Describe groups; predictions are known group by group.

        Raises:
            PromptfuseError: what a worker ended with.
            ConfigError: if Ray fails.
        """
        import ray
        from ray.data import ActorPoolStrategy

        settings = self.settings
        with _cluster(settings):
            # Ray Data starts workers again that were lost, and gives their blocks out again.
            rows = ray.data.from_items(
                [{"group": group_to_json(group)} for group in groups],
                override_num_blocks=min(len(groups), MOST_BLOCKS),
            )
            answers = rows.map(
                RayGroupWorker,
                fn_constructor_args=(describe(self.recipe), self.device, self.threads, self.models),
                compute=ActorPoolStrategy(size=settings.workers),
                num_cpus=settings.cpus_per_worker,
                num_gpus=settings.gpus_per_worker or None,
            )
            try:
                for row in answers.iter_rows():
                    deliver_answer(answer_from_json(row["answer"]), on_line, on_group)
            except ray.exceptions.RayTaskError:
                raise  # A fault of the program, with its traceback.
            except ray.exceptions.RayError as error:
                raise ConfigError(
                    f"engine ray: {one_line(error, 300)}; see Ray's logs; run the same command to resume"
                ) from None


@contextmanager
def _short_folder() -> Iterator[str | None]:
    """A folder for Ray's files alone where the usual one's path is too long for its sockets, else None."""
    usual = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    length = len(os.fsencode(usual))
    if length <= LONGEST_FOLDER:
        yield None
        return
    # A folder that was asked for is not replaced by another one.
    for place in () if os.environ.get("RAY_TMPDIR") else SHORT_FOLDERS:
        try:
            folder = TemporaryDirectory(prefix="ray-", dir=place, ignore_cleanup_errors=True)
        except OSError:
            continue
        with folder as path:
            yield path
        return
    raise ConfigError(
        f"engine ray: its sockets cannot be in {usual}, whose path has {length} bytes and may have "
        f"{LONGEST_FOLDER}; set RAY_TMPDIR to a folder with a shorter path"
    )


@contextmanager
def _cluster(settings: EngineSettings) -> Iterator[None]:
    """A quiet connection to Ray: the caller's, that to ``RAY_ADDRESS``, or to processes started for it."""
    import ray

    with nullcontext() if ray.is_initialized() else _connected(settings):
        logger = logging.getLogger("ray.data")
        level = logger.level
        logger.setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        shown = context.enable_progress_bars, context.print_on_execution_start
        context.enable_progress_bars = context.print_on_execution_start = False
        try:
            yield
        finally:
            context.enable_progress_bars, context.print_on_execution_start = shown
            logger.setLevel(level)


@contextmanager
def _connected(settings: EngineSettings) -> Iterator[None]:
    """A connection to Ray that ends with the context."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Its processes warn on standard error of what Ray Data takes care of.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    with nullcontext() if address else _short_folder() as folder:
        if not address:
            # Ray Data needs CPUs beside those that the workers reserve, or it starves.
            options["num_cpus"] = math.ceil(settings.workers * settings.cpus_per_worker) + 2
            options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        if folder is not None:
            options["_temp_dir"] = folder
        try:
            ray.init(**options)
        except (OSError, RuntimeError, ValueError) as error:
            if address:
                raise ConfigError(
                    f"engine ray: RAY_ADDRESS {address}: {str(error).split('.')[0][:200]}; start the "
                    "cluster, or unset RAY_ADDRESS for workers on this machine"
                ) from None
            raise ConfigError(
                f"engine ray: cannot start here: {one_line(error)}; check RAY_TMPDIR and the machine's "
                "limits, or use --engine local"
            ) from None
        try:
            if not address:
                _check_gpus(settings)
            yield
        finally:
            ray.shutdown()


def _check_gpus(settings: EngineSettings) -> None:
    """Raise ``ConfigError`` if this machine lacks what a worker reserves: Ray would wait without a word."""
    import ray

    there = ray.cluster_resources().get("GPU", 0)
    if settings.gpus_per_worker > there:
        raise ConfigError(
            f"engine ray: a worker reserves {settings.gpus_per_worker:g} GPUs, this machine has {there:g}; "
            "lower engine.gpus_per_worker, or set RAY_ADDRESS"
        )

"""A run over a data set: computes and writes what is missing, until every photo has its line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from promptfuse.errors import ConfigError
from promptfuse.evaluation.predictions import Prediction
from promptfuse.evaluation.recipes import describe
from promptfuse.evaluation.runs.config import DatasetRunConfig
from promptfuse.evaluation.runs.engines import Engine, make_engine
from promptfuse.evaluation.runs.groups import Group, Work, make_groups
from promptfuse.evaluation.runs.journal import Journal
from promptfuse.evaluation.runs.manifest import (
    FILE,
    Manifest,
    Session,
    describe_data,
    read_manifest,
    require_same,
)
from promptfuse.evaluation.runs.outputs import LocalOutput, open_output


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        photos: how many there are.
        done: how many have their line.
        failed: how many of those have no caption.
        fresh: how many were done since the run was started or resumed.
        seconds: time since then, the loading of models left out.
        last: the newest prediction; None if there is none yet.
        reason: why the first of those that failed did; empty if none did.
        notice: what failed and is tried again, such as a copy to an address; empty if nothing failed.
        warnings: what is odd in the data set, a line each.
    """

    photos: int
    done: int
    failed: int
    fresh: int = 0
    seconds: float = 0.0
    last: Prediction | None = None
    reason: str = ""
    notice: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def per_minute(self) -> float:
        """Photos a minute; 0 if nothing is known yet."""
        return 60 * self.fresh / self.seconds if self.fresh and self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """An estimate; None if nothing is known yet."""
        rate = self.per_minute
        return 60 * (self.photos - self.done) / rate if rate else None


OnProgress = Callable[[Progress], None]


def run_dataset(
    config: DatasetRunConfig,
    out: str | os.PathLike[str],
    on_progress: OnProgress | None = None,
    *,
    retry_failed: bool = False,
    every: float = 10.0,
) -> Progress:
    """Describe the photos of a data set, or resume the run that the folder holds.

    Args:
        config: what to do.
        out: a folder, or its address such as ``s3://bucket/runs/first``; gets ``predictions.jsonl``, a line
            for each photo, and ``manifest.json``.
        on_progress: called at the start and whenever there is a new line.
        retry_failed: first remove the lines of photos that failed, so that they are tried again.
        every: seconds between two writes of the manifest, at least.

    Returns:
        How it ended.

    Raises:
        ConfigError: if a setting is wrong, or the folder holds another run or is in use.
        ModelError: if a model cannot be loaded.
    """
    output = open_output(out)
    folder = output.folder
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"run folder {folder}: is a file; give a folder")
    recipe = config.make_recipe()
    dataset = config.read()
    output.fetch()
    before = read_manifest(folder)
    threads = config.threads or (before.threads if before else _threads(config))
    current = Manifest(
        config.name or "",
        describe_data(dataset, config.split, config.start),
        describe(recipe),
        config.seed,
        config.in_flight,
        threads,
        len(dataset.photos),
        recipe.preset().model_dump(),
        keep_rejected=config.keep_rejected,
    )
    _take_over(folder, before, current)
    groups = make_groups(dataset.photos, config.in_flight, config.seed, config.start)
    engine = make_engine(config.engine, recipe, config.device, threads)
    if before is None:
        # Before the folder is made: what is wrong with the models leaves no trace there.
        current.models = engine.load()
    with Journal(folder) as journal:
        # Another process may have had the folder until now.
        _take_over(folder, read_manifest(folder), current)

        def is_missing(id_: str) -> bool:
            return id_ not in journal.done or (retry_failed and journal.done[id_])

        missing = [group for group in groups if any(is_missing(photo.id) for photo in group.photos)]
        if before is not None and missing:
            current.models = engine.load()
            require_same(folder, before, current)
        if retry_failed:  # Now that nothing stands in the way of trying them again.
            journal.forget_failed()
        session = Session(engine=config.engine.model_dump(), device=config.device)
        report = on_progress or (lambda progress: None)
        return _Run(journal, output, current, session, report, every, dataset.problems).carry_out(
            engine, missing
        )


def _threads(config: DatasetRunConfig) -> int:
    """Threads of a process where nobody says how many: its share of all, or what Ray reserves."""
    if config.engine.kind == "ray":
        return max(1, int(config.engine.cpus_per_worker))
    return max(1, torch.get_num_threads() // config.engine.workers)


def _take_over(folder: Path, before: Manifest | None, current: Manifest) -> None:
    """Go on with the run of a folder, if there is one.

    Raises:
        ConfigError: if it is not the run that is asked for.
    """
    if before:
        require_same(folder, before, current)
        current.sessions = before.sessions
        current.models = current.models or before.models
    elif (lines := folder / "predictions.jsonl").exists() and lines.stat().st_size:
        raise ConfigError(f"run folder {folder}: has predictions but no {FILE}; give another folder")


@dataclass
class _Run:
    """The work on a run between its start or resume and its end."""

    journal: Journal
    output: LocalOutput
    manifest: Manifest
    session: Session
    on_progress: OnProgress
    every: float
    warnings: tuple[str, ...]
    last: Prediction | None = None
    notice: str = ""

    def __post_init__(self) -> None:
        self.began = self.written = time.monotonic()

    def carry_out(self, engine: Engine, missing: list[Group]) -> Progress:
        """Compute groups and write their lines; how it ended."""
        if not missing:
            self._write_what_changed()
            self.output.push(at_once=True)  # A copy to an address may have been cut short.
            self.on_progress(self.progress())
            return self.progress()
        models = self.manifest.models.items()
        self.session.models = {role: model.get("identity", "") for role, model in models}
        self.manifest.sessions.append(self.session)
        self._write()
        self.output.push(at_once=True)
        self.on_progress(self.progress())
        try:
            self.began = time.monotonic()
            engine.run(missing, self._line, self._group)
        finally:
            self.journal.sync()
            self._write()
            self.output.push(at_once=True)
        return self.progress()

    def progress(self) -> Progress:
        """How far the run has come."""
        return Progress(
            photos=self.manifest.photos,
            done=len(self.journal.done),
            failed=self.journal.failed,
            fresh=self.session.photos,
            seconds=time.monotonic() - self.began,
            last=self.last,
            reason=self.journal.reason,
            notice=self.notice,
            warnings=self.warnings,
        )

    def _line(self, prediction: Prediction) -> None:
        # A group that was cut short by a kill is computed whole; some of its lines may be there already.
        if prediction.id in self.journal.done:
            return
        self.journal.append(prediction)
        self.session.photos += 1
        self.last = prediction
        self.on_progress(self.progress())

    def _group(self, work: Work) -> None:
        session = self.session
        if not session.work_seconds:
            # Workers elsewhere load their models after the engine was started.
            self.began = max(self.began, time.monotonic() - work.seconds)
        session.work_seconds += work.seconds
        session.peak_memory_bytes = max(session.peak_memory_bytes, work.peak_memory_bytes)
        session.peak_device_bytes = max(session.peak_device_bytes, work.peak_device_bytes)
        self.journal.sync()
        if time.monotonic() - self.written >= self.every:
            self._write()
            self._copy()

    def _copy(self) -> None:
        """Bring the files to an address; what fails now is tried again, and counts only at the end."""
        try:
            self.output.push()
            self.notice = ""
        except ConfigError as error:
            self.notice = f"{error} (tried again)"
            self.on_progress(self.progress())

    def _write_what_changed(self) -> None:
        """Write the manifest unless it says all that already: it tells when a run was worked on last."""
        self.manifest.done, self.manifest.failed = len(self.journal.done), self.journal.failed
        known = read_manifest(self.journal.folder)
        if known is None or known.to_dict() != self.manifest.to_dict():
            self._write()

    def _write(self) -> None:
        self.manifest.done, self.manifest.failed = len(self.journal.done), self.journal.failed
        if self.manifest.sessions and self.manifest.sessions[-1] is self.session:
            self.session.seconds = time.monotonic() - self.began
        self.manifest.write(self.journal.folder)
        self.written = time.monotonic()

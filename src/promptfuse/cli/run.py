"""``promptfuse run``: caption the photos of a data set, as a YAML file describes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptfuse.cli._options import KeepRejected, LmOption, LmPrefix, changes_by_key, whole
from promptfuse.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from promptfuse.evaluation.runs import DatasetRunConfig, OnProgress, Progress

EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal."""


def run(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="File that describes the photos and the recipe.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Run folder or its address; resumes an existing run.",
            show_default="none; needed for a run",
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace any value of the file, e.g. recipe.image_weight=7; repeatable.",
            show_default="none",
        ),
    ] = None,
    lm: LmOption = None,
    lm_prefix: LmPrefix = None,
    limit: Annotated[
        int | None,
        typer.Option(
            parser=whole,
            metavar="N",
            help="The most photos to caption (replaces limit).",
            show_default="the file's, or all",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="local|ray",
            help="How to run worker processes (replaces engine.kind).",
            show_default="the file's, or local",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            parser=whole,
            metavar="N",
            help="Number of processes (replaces engine.workers).",
            show_default="the file's, or 1",
        ),
    ] = None,
    in_flight: Annotated[
        int | None,
        typer.Option(
            parser=whole,
            metavar="N",
            help="Photos to search for at a time in each process (replaces in_flight).",
            show_default="the file's, or 8",
        ),
    ] = None,
    keep_rejected: KeepRejected = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed photos again.")] = False,
    validate: Annotated[
        bool, typer.Option("--validate", help="Check the file, the data set and the models; no run.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the file with all defaults, as YAML; no run.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object at the end.")] = False,
) -> None:
    """Caption the photos of a data set; rerun to resume."""
    changes = changes_by_key(change or [], "recipe.image_weight=7")
    options = {"limit": limit, "engine.kind": engine, "engine.workers": workers, "in_flight": in_flight}
    changes |= {key: value for key, value in options.items() if value is not None}
    if keep_rejected:
        changes["keep_rejected"] = True

    from promptfuse.evaluation.runs import load_run_config
    from promptfuse.models.checkpoint import is_model_name, is_model_path
    from promptfuse.models.context import read_context

    if lm is not None:
        local = is_model_path(Path(lm)) and not is_model_name(lm)
        changes["lm"] = str(Path(lm).resolve()) if local else lm
    if lm_prefix is not None:
        text = read_context(lm_prefix)
        changes["lm_prefix"] = f"@{text}" if text.startswith("@") else text
    settings = load_run_config(config, changes)
    if validate:
        _validate(config, settings, as_json)
    if print_config:
        typer.echo(settings.to_yaml(), nl=False)
    if validate or print_config:
        return
    if not out:
        what = "is missing" if out is None else "is empty"
        raise ConfigError(f"--out {what}; give a run folder, e.g. --out runs/first")
    _carry_out(settings, out, retry_failed, as_json)


def _validate(config: Path, settings: DatasetRunConfig, as_json: bool) -> None:
    from promptfuse.evaluation.runs import check_run

    found = check_run(settings)
    if as_json:
        typer.echo(json.dumps({"config": str(config), "valid": True, **found.to_dict()}, ensure_ascii=False))
        return
    models = ", ".join(f"{role} ({one.name}, {one.where})" for role, one in found.models.items())
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    missing = f", {len(found.missing)} missing ({found.missing[0]}, ...)" if found.missing else ""
    typer.echo(f"{config}: valid; {found.photos} photos{missing}; models: {models}")


def _carry_out(settings: DatasetRunConfig, out: str, retry_failed: bool, as_json: bool) -> None:
    """Do the run, show its progress and report its end."""
    from promptfuse.evaluation.runs import run_dataset

    latest: list[Progress] = []
    try:
        with _display(out) as show:

            def on_progress(progress: Progress) -> None:
                latest[:] = [progress]
                show(progress)

            end = run_dataset(settings, out, on_progress, retry_failed=retry_failed)
    except KeyboardInterrupt:
        known = f", {latest[0].done} of {latest[0].photos} photos done" if latest else ""
        typer.echo(f"promptfuse: interrupted{known}; rerun the same command to resume {out}", err=True)
        raise typer.Exit(130) from None
    captions = end.done - end.failed
    if as_json:
        row = {
            "run": out,
            "photos": end.photos,
            "captions": captions,
            "failed": end.failed,
            "fresh": end.fresh,
            "seconds": round(end.seconds, 3),
            "per_minute": round(end.per_minute, 2),
        }
        typer.echo(json.dumps(row, ensure_ascii=False))
    else:
        rate = f", {end.per_minute:.1f} photos a minute" if end.fresh else ", nothing left to do"
        typer.echo(f"{out}: {captions} captions, {end.failed} photos failed{rate if captions else ''}")
    if not end.failed:
        return
    count = f"{end.failed} of {end.photos} photos failed"
    said = f"{count}, the first: {end.reason} (--retry-failed tries them again)"
    if not captions:
        raise ConfigError(f"{out}: {said}")
    typer.echo(f"warning: {said}", err=True)


@contextmanager
def _display(out: str) -> Iterator[OnProgress]:
    """Shows the progress: on a terminal a bar, elsewhere a line from time to time."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield _Lines(out)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    # On a narrow terminal, cut the caption and not the numbers.
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True, max_width=20)),
        BarColumn(bar_width=16),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[rate]}", table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[last]}", style="green", table_column=Column(no_wrap=True, ratio=1)),
    )
    with Bar(*columns, console=Console(stderr=True), expand=True) as bar:
        yield _OnTerminal(bar, out)


class _OnTerminal:
    """Shows a bar, the rate, the time left, failures and the last caption."""

    def __init__(self, bar: Bar, out: str) -> None:
        from rich.markup import escape

        self.bar, self.escape = bar, escape
        self.task = bar.add_task(escape(out), total=None, rate="loading", last="")
        self.told = ""
        self.warned = False

    def __call__(self, progress: Progress) -> None:
        if not self.warned:
            for warning in progress.warnings:
                self.bar.console.print(self.escape(f"warning: {warning}"), style="yellow")
        self.warned = True
        last = progress.last
        text = "" if last is None else last.text or last.error or ""
        self.bar.update(
            self.task,
            total=progress.photos,
            completed=progress.done,
            rate=_rate(progress),
            last=self.escape(text),
        )
        if progress.notice not in ("", self.told):
            self.bar.console.print(self.escape(progress.notice), style="yellow")
        self.told = progress.notice


class _Lines:
    """Writes a line to standard error, at most every ``EVERY`` seconds."""

    def __init__(self, out: str) -> None:
        self.out = out
        self.told = time.monotonic()
        self.notice = ""
        self.warned = False

    def __call__(self, progress: Progress) -> None:
        if not self.warned:
            for warning in progress.warnings:
                typer.echo(f"warning: {warning}", err=True)
        self.warned = True
        if progress.notice not in ("", self.notice):
            typer.echo(f"{self.out}: {progress.notice}", err=True)
        self.notice = progress.notice
        now = time.monotonic()
        if now - self.told < EVERY or progress.last is None:
            return
        self.told = now
        last = progress.last.text or progress.last.error
        typer.echo(f"{self.out}: {progress.done}/{progress.photos}, {_rate(progress)}; {last}", err=True)


def _rate(progress: Progress) -> str:
    """Rate, time left and failures, as far as they are known."""
    left = progress.seconds_left
    if left is None:
        return "reading"
    hours, minutes = divmod(round(left / 60), 60)
    time_left = f"{hours} h {minutes:02d} min" if hours else f"{minutes} min" if minutes else f"{left:.0f} s"
    failed = f", {progress.failed} failed" if progress.failed else ""
    return f"{progress.per_minute:.1f} a minute, {time_left} left{failed}"

"""``promptfuse report``: one page about runs over a data set."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from promptfuse.cli._options import (
    ClassifierJudge,
    ClipJudge,
    JudgeDevice,
    JudgeLimit,
    JudgeModel,
    JudgeTexts,
    KeepRejected,
    LmJudge,
    Resamples,
    listed,
    text_judge,
    whole,
)
from promptfuse.errors import ConfigError


def report(
    folders: Annotated[list[str], typer.Argument(metavar="DIR", help="Folders of `promptfuse run`.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="HTML page to write.",
            show_default="report.html, or no page with --table or --json",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the tables for a paper or a notebook: .md, .tex or .csv.",
            show_default="no file",
        ),
    ] = None,
    references: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Reference captions.", show_default="those of the runs' data set"),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "--metrics",
            metavar="NAME,...",
            help="Metrics or groups of `promptfuse score`; repeatable.",
            show_default="all",
        ),
    ] = None,
    java: Annotated[bool, typer.Option("--java", help="Add METEOR and SPICE (slow; need Java).")] = False,
    clip: ClipJudge = None,
    lm: LmJudge = None,
    classifier: ClassifierJudge = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL",
            help="Label to look for with --classifier; repeatable.",
            show_default="the labels that the runs were steered to",
        ),
    ] = None,
    judge_texts: JudgeTexts = None,
    judge_model: JudgeModel = None,
    judge_limit: JudgeLimit = 3000,
    photos: Annotated[bool, typer.Option("--photos/--no-photos", help="Show photos in the gallery.")] = True,
    limit_gallery: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="Most photos in the gallery.")
    ] = 2000,
    resamples: Resamples = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as a JSON object.")] = False,
    keep_rejected: KeepRejected = False,
    device: JudgeDevice = "cpu",
) -> None:
    """Compare runs on one page: tables, plots and a gallery.

    Every number in the tables has a 95% bootstrap interval.
    """
    for name, number in (("limit-gallery", limit_gallery), ("resamples", resamples)):
        if number < 0:
            raise ConfigError(f"--{name} must be at least 0, got {number}")

    from promptfuse._utils.atomic_files import atomic_write, check_target
    from promptfuse.evaluation.metrics.labelled_texts import label_and_path
    from promptfuse.evaluation.metrics.selection import choose
    from promptfuse.evaluation.run_files import parts
    from promptfuse.report.runs import compare, load_judges, load_runs, measure_runs
    from promptfuse.report.runs.gallery import begin_thumbnails
    from promptfuse.report.runs.page import write_report
    from promptfuse.report.runs.text_tables import text_tables, writer_for

    start = time.perf_counter()
    page = out if out is not None else None if as_json or table is not None else Path("report.html")
    inputs = [file for folder in folders for file in parts(folder)] + ([references] if references else [])
    inputs += [label_and_path(source)[1] for source in judge_texts or ()]
    if page is not None:
        check_target(page, inputs, (".html", ".htm"))
    if table is not None:
        writer_for(table)
        check_target(table, inputs)
    names = listed(metric or []) or None
    choose(names)
    comparison = compare(load_runs(folders), references, keep_rejected)
    judges = replace(
        load_judges(clip, lm, classifier, label or (), device),
        text=text_judge(judge_texts, judge_model, judge_limit, device),
    )
    with ExitStack() as stack:
        pictures = None
        if page is not None and photos:
            # Made in other threads while the metrics are computed.
            pictures = stack.enter_context(begin_thumbnails(comparison, limit_gallery))
        measured = measure_runs(comparison, judges, metrics=names, java=java, resamples=resamples)
        if page is not None:
            write_report(page, measured, photos=pictures, limit=limit_gallery)
    if table is not None:
        atomic_write(table, text_tables(measured, table))
    if as_json:
        typer.echo(json.dumps(measured.to_dict(), ensure_ascii=False))
        return
    for warning in measured.warnings:
        typer.echo(f"warning: {warning}", err=True)
    written = page if page is not None else table
    size = written.stat().st_size / 1e6 if written is not None else 0.0
    runs = len(comparison.runs)
    typer.echo(
        f"{written}: {runs} run{'s' if runs > 1 else ''}, {len(comparison.ids):,} photos, {size:.1f} MB "
        f"in {time.perf_counter() - start:.1f} s"
    )

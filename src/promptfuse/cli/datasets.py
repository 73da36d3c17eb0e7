"""``promptfuse datasets``: check a data set, and list those that have names."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from promptfuse._utils.progress import progress_bar
from promptfuse.cli import _kinds
from promptfuse.cli._options import KeepRejected

datasets_app = typer.Typer(
    name="datasets",
    help="Check data sets of photos, and list those that have names.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@datasets_app.command(cls=_kinds.DATA)
def check(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PATH|NAME", help="A file, a folder of photos, an address, hf:OWNER/NAME or a name."
        ),
    ],
    images: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder of the photos.", show_default="found near the file"),
    ] = None,
    format: Annotated[
        str,
        typer.Option(metavar="NAME", help="Format of the data set; auto detects it."),
    ] = "auto",
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Check only the photos of this split.", show_default="all"),
    ] = None,
    keep_rejected: KeepRejected = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as a JSON object.")] = False,
) -> None:
    """Report which photos are found, missing or unreadable.

    Every photo is decoded. The exit code is 0 if all photos can be used, else 2.
    """
    from promptfuse.evaluation.datasets.check import check_dataset

    with progress_bar("photos") as progress:
        report = check_dataset(
            source,
            format=format,
            images=images,
            split=split,
            keep_rejected=keep_rejected,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        typer.echo(str(report))
    if not report.ok:
        if not as_json:
            counts = (
                (len(report.missing), "missing"),
                (len(report.unreadable), "unreadable"),
                (len(report.duplicate_ids), "duplicate ids"),
            )
            bad = ", ".join(f"{count:,} {what}" for count, what in counts if count)
            typer.echo(f"promptfuse: {report.source}: {bad}", err=True)
        raise typer.Exit(2)


@datasets_app.command("list")
def list_datasets(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """List the names of data sets, and where their files are."""
    from promptfuse.evaluation.datasets.names import list_names

    rows = list_names()
    width = max(len(row.name) for row in rows)
    for row in rows:
        if as_json:
            typer.echo(json.dumps(asdict(row), ensure_ascii=False))
        else:
            where = row.source if row.state == "found" else row.state if row.source is None else None
            state = where or f"{row.source} is {row.state}"
            typer.echo(f"{row.name:<{width}}  {row.about or '-'}; {state}")
    if not as_json:
        from promptfuse.evaluation.datasets.names import user_file

        unset = any(row.state.startswith("PROMPTFUSE_DATA") for row in rows)
        hint = (
            "Set PROMPTFUSE_DATA to the folder that has coco/, flickr8k/ and so on, or name"
            if unset
            else "Name"
        )
        typer.echo(f"{hint} data sets in {user_file()}: 'my-photos: PATH' a line.", err=True)

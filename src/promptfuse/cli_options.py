"""What options of several commands have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer


def whole(value: str) -> int:
    """Parse a whole number; the message names what was given."""
    try:
        return int(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a whole number") from None


def listed(values: Iterable[str]) -> list[str]:
    """The names of a repeatable option, each value one or several with commas between."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


ClipJudge = Annotated[
    str | None,
    typer.Option(
        "--clip", metavar="MODEL", help="Image-text model that judges, for CLIPScore.", show_default="none"
    ),
]
LmJudge = Annotated[
    str | None,
    typer.Option(
        "--lm", metavar="MODEL", help="Language model that judges, for perplexity.", show_default="none"
    ),
]
ClassifierJudge = Annotated[
    str | None,
    typer.Option(
        "--classifier",
        metavar="MODEL",
        help="Classifier that judges, for the share of captions with --label.",
        show_default="none",
    ),
]
Resamples = Annotated[
    int,
    typer.Option(
        "--resamples", parser=whole, metavar="N", help="Bootstrap samples for the intervals; 0 for none."
    ),
]
KeepRejected = Annotated[
    bool,
    typer.Option(
        "--keep-rejected", help="Count captions that the data set marks as rejected, as VizWiz does."
    ),
]
JudgeDevice = Annotated[
    str,
    typer.Option("--device", metavar="NAME", help="Where the judging models run: cpu, cuda, cuda:1, mps."),
]

LmOption = Annotated[
    str | None,
    typer.Option(
        "--lm",
        metavar="MODEL",
        help="Language model in place of the preset's: an id or folder.",
        show_default="the preset's",
    ),
]
LmPrefix = Annotated[
    str | None,
    typer.Option(
        "--lm-prefix",
        metavar="TEXT|@FILE",
        help="What the language model alone reads first, e.g. a file with an example caption on each line.",
        show_default="the preset's or the file's, or nothing",
    ),
]

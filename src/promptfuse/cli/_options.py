"""What options of several commands have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from promptfuse.cli._progress import progress_bar
from promptfuse.errors import ConfigError

if TYPE_CHECKING:
    from promptfuse.evaluation.metrics.text_judge import TextJudge


def whole(value: str) -> int:
    """Parse a whole number; the message names what was given."""
    try:
        return int(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a whole number") from None


def text_judge(
    texts: Sequence[str] | None, model: str | None, limit: int, device: str, seed: int = 0
) -> TextJudge | None:
    """Train the judge that the options ask for, with a progress bar; None if they ask for none.

    Raises:
        ConfigError: if the options do not go together, or it cannot be trained.
        ModelError: if the encoder cannot be loaded.
    """
    if not texts and model is None:
        return None
    if not texts or model is None:
        raise ConfigError("--judge-texts FILE and --judge-model MODEL belong together; give both")
    if limit < 1:
        raise ConfigError(f"--judge-limit {limit}: give 1 or more")
    from promptfuse.evaluation.metrics.text_judge import train_judge

    with progress_bar("training the judge") as show:
        return train_judge(texts, model, device=device, limit=limit, seed=seed, progress=show)


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
JudgeTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--judge-texts",
        metavar="[LABEL=]FILE",
        help="Labelled texts that a judge is trained on: text and label, or texts of one label; repeatable.",
        show_default="none",
    ),
]
JudgeModel = Annotated[
    str | None,
    typer.Option(
        "--judge-model",
        metavar="MODEL",
        help="Sentence encoder whose features the trained judge reads.",
        show_default="none",
    ),
]
JudgeLimit = Annotated[
    int,
    typer.Option("--judge-limit", parser=whole, metavar="N", help="The most texts of a label that are read."),
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

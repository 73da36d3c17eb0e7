"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptfuse._utils.progress import progress_bar
from promptfuse.errors import ConfigError

if TYPE_CHECKING:
    from promptfuse.evaluation.metrics.text_judge import TextJudge


def whole(value: str) -> int:
    """Parse a whole number.

    Raises:
        typer.BadParameter: if it is not one; the message names the value.
    """
    try:
        return int(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a whole number") from None


def text_judge(
    texts: Sequence[str] | None, model: str | None, limit: int, device: str, seed: int = 0
) -> TextJudge | None:
    """Train the judge that the options describe, with a progress bar; None without such options.

    Args:
        texts: values of ``--judge-texts``.
        model: value of ``--judge-model``.
        limit: the most texts of each label.
        device: the device of the encoder.
        seed: random seed of the texts that are drawn.

    Raises:
        ConfigError: if only one of the options is given, or the judge cannot be trained.
        ModelError: if the encoder cannot be loaded.
    """
    if not texts and model is None:
        return None
    if not texts or model is None:
        raise ConfigError("--judge-texts FILE and --judge-model MODEL need each other; give both")
    if limit < 1:
        raise ConfigError(f"--judge-limit {limit}: must be at least 1")
    from promptfuse.evaluation.metrics.text_judge import train_judge

    with progress_bar("training the judge") as show:
        return train_judge(texts, model, device=device, limit=limit, seed=seed, progress=show)


def listed(values: Iterable[str]) -> list[str]:
    """The names in a repeatable option, of which each value may list several, separated by commas."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def changes_by_key(pairs: Iterable[str], example: str) -> dict[str, Any]:
    """What ``--set KEY=VALUE`` options change in a file, by dotted keys; values are read as YAML.

    Args:
        pairs: the values of the option.
        example: a change of such a file, for the error message.

    Raises:
        ConfigError: if one is not ``KEY=VALUE``.
    """
    from promptfuse._utils.yaml_files import parse_value

    changes: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {pair!r} is not KEY=VALUE; write e.g. --set {example}")
        changes[key] = parse_value(value)
    return changes


ClipJudge = Annotated[
    str | None,
    typer.Option("--clip", metavar="MODEL", help="Image-text model for CLIPScore.", show_default="none"),
]
LmJudge = Annotated[
    str | None,
    typer.Option("--lm", metavar="MODEL", help="Language model for perplexity.", show_default="none"),
]
ClassifierJudge = Annotated[
    str | None,
    typer.Option(
        "--classifier",
        metavar="MODEL",
        help="Classifier for the share of captions with --label.",
        show_default="none",
    ),
]
JudgeTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--judge-texts",
        metavar="[LABEL=]FILE",
        help="Labelled texts to train a judge on; with LABEL=, all texts of FILE have it; repeatable.",
        show_default="none",
    ),
]
JudgeModel = Annotated[
    str | None,
    typer.Option(
        "--judge-model",
        metavar="MODEL",
        help="Sentence encoder for the trained judge's features.",
        show_default="none",
    ),
]
JudgeLimit = Annotated[
    int,
    typer.Option("--judge-limit", parser=whole, metavar="N", help="The most texts to read of each label."),
]
Resamples = Annotated[
    int,
    typer.Option(
        "--resamples", parser=whole, metavar="N", help="Bootstrap samples for the intervals; 0 for none."
    ),
]
KeepRejected = Annotated[
    bool,
    typer.Option("--keep-rejected", help="Use captions that the data set marks as rejected, as VizWiz does."),
]
JudgeDevice = Annotated[
    str,
    typer.Option("--device", metavar="NAME", help="Device of the judging models: cpu, cuda, cuda:1, mps."),
]

LmOption = Annotated[
    str | None,
    typer.Option(
        "--lm",
        metavar="MODEL",
        help="Language model that replaces the preset's: an id or folder.",
        show_default="the preset's",
    ),
]
LmPrefix = Annotated[
    str | None,
    typer.Option(
        "--lm-prefix",
        metavar="TEXT|@FILE",
        help="Text that only the language model reads, first: e.g. a file of example captions.",
        show_default="the preset's or the file's, or nothing",
    ),
]

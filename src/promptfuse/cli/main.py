"""The command line. It parses, shows and reports; the work is done by the tasks."""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from promptfuse._utils.memory import retain_heap
from promptfuse.cli import _kinds
from promptfuse.cli._options import LmOption, LmPrefix, whole
from promptfuse.cli.adapter import adapter_app
from promptfuse.cli.datasets import datasets_app
from promptfuse.cli.optimize import optimize
from promptfuse.cli.report import report
from promptfuse.cli.run import run
from promptfuse.cli.score import score
from promptfuse.errors import ConfigError, ImageError, PromptfuseError, PromptfuseWarning, TextError
from promptfuse.version import __version__

if TYPE_CHECKING:
    from promptfuse.search import Result
    from promptfuse.tasks import Captioner

app = typer.Typer(
    name="promptfuse",
    help="Find one text that several frozen models agree on, even though each has its own tokenizer.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"promptfuse {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


def caption(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="Photos to caption, or their addresses.")
    ],
    sentiment: Annotated[
        str | None,
        typer.Option(metavar="positive|negative", help="Sentiment of the captions.", show_default="none"),
    ] = None,
    steer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL:LABEL=WEIGHT",
            help="Steer towards a classifier's label, or away with a weight below 0; repeatable.",
            show_default="none",
        ),
    ] = None,
    models: Annotated[
        str,
        typer.Option(
            metavar="PRESET",
            help="Models and settings: mini (embedded), paper (from the hub), or a .yaml file.",
        ),
    ] = "mini",
    lm: LmOption = None,
    lm_prefix: LmPrefix = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What each caption begins with.",
            show_default="none with mini, 'An image of' with paper",
        ),
    ] = None,
    glue: Annotated[
        bool, typer.Option("--glue", help="Let the first new token go on with the prefix's last word.")
    ] = False,
    effort: Annotated[
        str | None,
        typer.Option(
            metavar="fast|default|thorough",
            help="How many texts the search looks at.",
            show_default="default",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            parser=whole,
            metavar="N",
            help="The most tokens to append.",
            show_default="20 with mini, 16 with paper",
        ),
    ] = None,
    beams: Annotated[
        int | None,
        typer.Option(
            parser=whole,
            metavar="N",
            help="Texts kept after each step.",
            show_default="the effort's: 12 with mini, 4 with paper",
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            parser=whole,
            metavar="N",
            help="Texts scored exactly, for each kept text and step.",
            show_default="the effort's: 4 with mini, 256 with paper",
        ),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TERM=VALUE",
            help="Weight of a term: fluency, image, sentiment or steer:LABEL; repeatable.",
            show_default="the preset's, see promptfuse models",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="Random seed, for methods that sample.")
    ] = 0,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where the models run: cpu, cuda, cuda:1, mps.")
    ] = "cpu",
    in_flight: Annotated[
        int,
        typer.Option(
            parser=whole, metavar="N", help="Photos searched for side by side: faster for many photos."
        ),
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="Write a page that shows how the search went.", show_default="no page"
        ),
    ] = None,
) -> None:
    """Caption photos by a search for words that the models agree on."""
    weights = _weights(weight or [])
    for name, number in (
        ("steps", steps),
        ("beams", beams),
        ("candidates", candidates),
        ("in-flight", in_flight),
    ):
        if number is not None and number < 1:
            raise ConfigError(f"--{name} {number} is too few; give 1 or more")

    from promptfuse._utils.atomic_files import check_target
    from promptfuse.models.context import read_context
    from promptfuse.report.search.page import Card, write_page
    from promptfuse.tasks import Captioner
    from promptfuse.tasks.effort import check_effort

    if trace is not None:
        check_target(trace, images, (".html", ".htm"))
    before = None if lm_prefix is None else read_context(lm_prefix)
    captioner = Captioner(models, device=device, lm=lm, lm_prefix=before)
    check_effort(effort)
    captioner.load(sentiment, steer or ())
    settings = {
        "sentiment": sentiment,
        "steer": tuple(steer or ()),
        "prefix": prefix,
        "glue": glue,
        "effort": effort,
        "steps": steps,
        "beams": beams,
        "candidates": candidates,
        "weights": weights,
        "seed": seed,
    }
    done: list[tuple[str, Result]] = []
    failed = 0
    for image, outcome in _outcomes(captioner, images, settings, in_flight):
        if not isinstance(outcome, Exception):
            done.append((image, outcome))
            _show(image, outcome, sentiment, steer or [], as_json)
        elif isinstance(outcome, ImageError | TextError):
            # One bad photo loses nothing of the others; the exit code still tells.
            _complain(outcome)
            failed += 1
        else:
            raise outcome
    if trace is not None and done:
        label = ", ".join([*([sentiment] if sentiment else []), *(steer or [])]) or "plain"
        cards = [Card(Path(image).name, image, [(label, result)]) for image, result in done]
        write_page(trace, "How promptfuse found these captions", cards)
    if failed:
        raise typer.Exit(2)


def list_models(
    presets: Annotated[
        list[str] | None,
        typer.Argument(metavar="PRESET", help="Presets, or .yaml files.", show_default="all presets"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """List the presets, their models and where those are.

    Of a language model also what stands before its texts.
    """
    from promptfuse.models import PRESETS, load_preset
    from promptfuse.models.info import place_of, start_of
    from promptfuse.tasks.caption import ROLES

    for name in presets or PRESETS:
        preset = load_preset(name)
        if not as_json:
            typer.echo(
                f"{name}: {preset.steps} steps, {preset.beams} beams, {preset.candidates} candidates; "
                f"weights: fluency {preset.fluency_weight:g}, image {preset.image_weight:g}, "
                f"sentiment {preset.sentiment_weight:g}"
            )
        for role in ROLES:
            model = getattr(preset, role)
            if model is None:
                continue
            state, where = place_of(model)
            start = start_of(model, preset.lm_start or "auto") if role == "lm" else None
            if as_json:
                row = {"preset": name, "role": role, "model": model, "where": where, "state": state}
                typer.echo(json.dumps(row | ({"start": start} if role == "lm" else {})))
            else:
                shown = "" if start is None else f"  texts begin with: {json.dumps(start)}"
                typer.echo(f"  {role:<11} {model:<52} {state:<11} {where}{shown}")


def _weights(pairs: list[str]) -> dict[str, float]:
    """Parse ``TERM=VALUE`` options."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.rpartition("=")  # A steer's label may hold one too.
        if not equals or not name:
            raise ConfigError(f"--weight {pair!r} is not TERM=VALUE; write e.g. --weight image=22")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(
                f"--weight {pair!r}: {value!r} is not a number; write e.g. --weight {name}=22"
            ) from None
    return found


def _outcomes(
    captioner: Captioner, images: Sequence[str], settings: dict[str, Any], in_flight: int
) -> Iterator[tuple[str, Result | Exception]]:
    """What becomes of each photo, in their order, each as soon as it and those before it are done."""
    if in_flight > 1 and len(images) > 1:
        from promptfuse.tasks.many import caption_each

        yield from zip(images, caption_each(captioner, images, in_flight=in_flight, **settings), strict=True)
        return
    for image in images:
        try:
            yield image, _caption_one(captioner, image, settings)
        except PromptfuseError as error:
            yield image, error


def _caption_one(captioner: Captioner, image: str, settings: dict[str, Any]) -> Result:
    """Search for one caption, with a live display on a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return captioner(image, **settings)
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    console = Console(stderr=True)
    with Live(Text(f"{image}: reading"), console=console, transient=True, refresh_per_second=8) as live:
        search = captioner.search(image, **settings)
        for step in search:
            terms = "  ".join(f"{name} {value:.3f}" for name, value in step.best.terms.items())
            live.update(
                Group(
                    Text(f"{image}  step {step.number}/{search.steps}", style="bold"),
                    ProgressBar(total=search.steps, completed=step.number, width=40),
                    Text(step.best.text, style="green"),
                    Text(
                        f"value {step.best.value:.3f}  {terms}  {step.exact_evaluations} texts", style="dim"
                    ),
                )
            )
    return search.result()


def _show(image: str, result: Result, sentiment: str | None, steer: list[str], as_json: bool) -> None:
    if as_json:
        row = {
            "image": image,
            "text": result.text,
            "value": result.value,
            "terms": result.terms,
            "weights": result.weights,
            "sentiment": sentiment,
            "steer": steer,
            "complete": result.complete,
            "models": result.models,
            "seed": result.seed,
            "seconds": round(result.seconds, 3),
            "exact_evaluations": result.exact_evaluations,
            "versions": result.versions,
        }
        typer.echo(json.dumps(row, ensure_ascii=False))
    elif sys.stdout is not None and sys.stdout.isatty():
        terms = "  ".join(f"{name} {value:.3f}" for name, value in result.terms.items())
        typer.secho(image, bold=True)
        typer.echo(f"  {result.text}")
        typer.secho(
            f"  value {result.value:.3f}  {terms}  {result.seconds:.1f} s, {result.exact_evaluations} texts",
            dim=True,
        )
    else:
        typer.echo(f"{image}\t{result.text}")


def _complain(error: Exception) -> None:
    line = " ".join(str(error).split())
    typer.echo(f"promptfuse: {line}", err=True)


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print our warnings in one line, and others as ever."""
    if issubclass(category, PromptfuseWarning):
        typer.echo(f"warning: {message}", err=True)
    else:
        _SHOW(message, category, filename, lineno, file, line)


_SHOW = warnings.showwarning


# In the order that --help lists them.
app.command()(caption)
app.command(cls=_kinds.OPTIMIZE)(optimize)
app.command(cls=_kinds.RUN)(run)
app.command(cls=_kinds.SCORE)(score)
app.command()(report)
app.command("models")(list_models)
app.add_typer(datasets_app, name="datasets")
app.add_typer(adapter_app, name="adapter")


def main() -> None:
    """Run the command line; bad input gives one line on standard error and exit code 2."""
    retain_heap()
    for stream in (sys.stdout, sys.stderr):
        # A file may have a name that is no text; it is shown all the same.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    # Typer carries its own copy of click in some versions, so its exceptions are met by their shape.
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = app(standalone_mode=False)
    except PromptfuseError as error:
        _complain(error)
        code = 2
    except KeyboardInterrupt:
        typer.echo("promptfuse: interrupted", err=True)
        code = 130
    except OSError as error:
        _complain(
            ConfigError(
                f"{error.filename or 'output'}: {error.strerror or error}; check the path and the disk"
            )
        )
        code = 2
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message())
        else:
            command = getattr(getattr(error, "ctx", None), "command_path", "promptfuse")
            _complain(ConfigError(f"{error.format_message()} (see {command} --help)"))
        code = getattr(error, "exit_code", 2)
    sys.exit(code if isinstance(code, int) else 0)

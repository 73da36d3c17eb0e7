"""The ``promptfuse`` command: puts the commands together and turns errors into one line and an exit code."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Annotated

import typer

from promptfuse._utils.memory import retain_heap
from promptfuse.cli import _kinds
from promptfuse.cli._messages import complain, show_warning
from promptfuse.cli.adapter import adapter_app
from promptfuse.cli.caption import caption
from promptfuse.cli.datasets import datasets_app
from promptfuse.cli.invert import invert
from promptfuse.cli.models import list_models
from promptfuse.cli.optimize import optimize
from promptfuse.cli.report import report
from promptfuse.cli.run import run
from promptfuse.cli.score import score
from promptfuse.errors import ConfigError, PromptfuseError
from promptfuse.version import __version__

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


# In the order that --help lists them.
app.command()(caption)
app.command()(invert)
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
        # A file's name may hold bytes that are not valid text; print it all the same.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    # Some versions of typer bundle click, so its exceptions are recognised by their attributes.
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            code = app(standalone_mode=False)
    except PromptfuseError as error:
        complain(error)
        code = 2
    except KeyboardInterrupt:
        typer.echo("promptfuse: interrupted", err=True)
        code = 130
    except OSError as error:
        complain(
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
            complain(ConfigError(f"{error.format_message()} (see {command} --help)"))
        code = getattr(error, "exit_code", 2)
    sys.exit(code if isinstance(code, int) else 0)

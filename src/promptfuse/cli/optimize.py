"""``promptfuse optimize``: run the search that a YAML file describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptfuse.cli._display import search_display
from promptfuse.cli._messages import notes_not_logged
from promptfuse.cli._options import LmPrefix, changes_by_key, whole
from promptfuse.errors import ConfigError

if TYPE_CHECKING:
    from promptfuse.config import SearchConfig
    from promptfuse.search import Result


def optimize(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="File that describes the search.")],
    validate: Annotated[
        bool,
        typer.Option(
            "--validate", help="Check the file, and that its models, labels and photos exist; no search."
        ),
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the file with all defaults, as YAML; no search.")
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            parser=whole,
            metavar="N",
            help="The most steps (replaces stopping.steps).",
            show_default="the file's, or 16",
        ),
    ] = None,
    early_stop: Annotated[
        bool,
        typer.Option(
            "--early-stop",
            help="Stop once the models greedily generate their targets (sets stopping.early_stop).",
        ),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            parser=whole,
            metavar="N",
            help="Random seed, for methods that sample (replaces seed).",
            show_default="the file's, or 0",
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What every text begins with (replaces prefix).",
            show_default="the file's, or nothing",
        ),
    ] = None,
    lm_prefix: LmPrefix = None,
    complete: Annotated[
        bool | None,
        typer.Option(
            "--complete/--no-complete",
            help="Whether the result must be a finished sentence; prompts need not be (replaces complete).",
            show_default="the file's, or complete",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Device of the models: cpu, cuda, cuda:1, mps (replaces device).",
            show_default="the file's, or cpu",
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace any value of the file, e.g. terms.image.weight=7; repeatable.",
            show_default="none",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Run folder (replaces run_dir); resumes an existing run.",
            show_default="the file's, or none",
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="Write a page that shows how the search went.", show_default="no page"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let BlackBox terms call functions of your modules.")
    ] = False,
) -> None:
    """Search for the text that minimises a YAML file's objective.

    The exit code is 1 if no text was found that satisfies the constraints.
    """
    changes = _changes(
        change or [],
        steps=steps,
        early_stop=early_stop or None,
        seed=seed,
        prefix=prefix,
        complete=complete,
        device=device,
        out=out,
    )

    from promptfuse.config import check_config, load_config
    from promptfuse.config.base import at

    settings = load_config(config, changes)
    if lm_prefix is not None:
        names = [name for name, term in settings.terms.items() if term.kind == "Fluency"]
        if not names:
            raise ConfigError(f"--lm-prefix: only Fluency terms read it, and {config} has none; leave it out")
        settings = load_config(config, changes | _contexts(names, lm_prefix))
    if steps is not None and getattr(settings.method, "steps", None) is not None:
        raise ConfigError(f"--steps {steps}: the chain sets its own steps; use --set method.steps=[...]")
    with at(str(config)):
        settings.require_allowed(allow_code)
        if validate:
            sketches = check_config(settings, allow_code=allow_code)
    if print_config:
        typer.echo(settings.to_yaml(), nl=False)
    elif validate and as_json:
        models = {name: sketch.to_dict() for name, sketch in sketches.items()}
        typer.echo(json.dumps({"config": str(config), "valid": True, "models": models}))
    elif validate:
        found = ", ".join(f"{name} ({sketch.name}, {sketch.where})" for name, sketch in sketches.items())
        typer.echo(f"{config}: valid; models: {found}")
    else:
        result = _run(config, settings, trace, allow_code)
        _show(config, result, as_json)
        for note in result.notes:
            typer.echo(f"promptfuse: {note}", err=True)
        if not result.satisfied:
            raise typer.Exit(1)


def _contexts(names: list[str], lm_prefix: str) -> dict[str, Any]:
    """What ``--lm-prefix`` changes in the file; its path is relative to the working folder."""
    from promptfuse.models.context import read_context

    text = read_context(lm_prefix)
    return {f"terms.{name}.context": f"@{text}" if text.startswith("@") else text for name in names}


def _changes(
    pairs: list[str], *, steps: int | None, early_stop: bool | None, out: Path | None, **plain: Any
) -> dict[str, Any]:
    """What options change in the file, by dotted keys."""
    changes = changes_by_key(pairs, "terms.image.weight=7")
    # The path of an option is relative to the working folder, not to the file.
    options: dict[str, Any] = {
        "stopping.steps": steps,
        "stopping.early_stop": early_stop,
        "run_dir": None if out is None else str(out.resolve()),
        **plain,
    }
    return changes | {key: value for key, value in options.items() if value is not None}


def _run(config: Path, settings: SearchConfig, trace: Path | None, allow_code: bool) -> Result:
    """Run the search, and write the run folder and the page."""
    from promptfuse._utils.atomic_files import check_target
    from promptfuse.config.base import at
    from promptfuse.config.folder import claim_folder, write_result

    if trace is not None:
        check_target(trace, [config, *settings.photos()], (".html", ".htm"))
    if settings.run_dir is not None:
        claim_folder(Path(settings.run_dir), settings)
    with search_display(config.name) as display:
        with at(str(config)):
            search = settings.search(allow_code=allow_code, loading=display.loading)
        if settings.run_dir is not None:
            claim_folder(Path(settings.run_dir), settings, write=True)
        for _ in search:
            display.step(search)
        with notes_not_logged():
            result = search.result()
    if settings.run_dir is not None:
        write_result(Path(settings.run_dir), result)
    if trace is not None:
        from promptfuse.report.search.search_page import write_search_page

        write_search_page(trace, config.name, result, settings.photos(), settings.to_yaml())
    return result


def _show(config: Path, result: Result, as_json: bool) -> None:
    from promptfuse.report.document import counted

    if as_json:
        row = result.to_dict()
        del row["history"]
        typer.echo(json.dumps({"run": str(config), **row}, ensure_ascii=False))
    else:
        terms = "  ".join(f"{name} {value:.3f}" for name, value in result.terms.items())
        texts, steps = counted(result.exact_evaluations, "text"), counted(len(result.history), "step")
        counts = f"{result.seconds:.1f} s, {texts}, {steps}"
        if not result.complete:
            counts += "; the text is incomplete"
        typer.echo(result.text)
        for line in (f"value {result.value:.3f}  {terms}  {counts}", *result.said()):
            typer.secho(f"  {line}", dim=True)

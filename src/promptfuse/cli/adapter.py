"""``promptfuse adapter``: fit and show adapters, and measure how well transported gradients rank words."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptfuse._utils.progress import progress_bar
from promptfuse.cli._options import whole
from promptfuse.errors import AdapterError, ConfigError, ModelError

if TYPE_CHECKING:
    from promptfuse.adapters import Adapter
    from promptfuse.models import CausalLM, Model

adapter_app = typer.Typer(
    name="adapter",
    help="Fit, show and evaluate adapters between two models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

TEXTS = 8
"""How many texts the language model writes for ``evaluate``, unless there are more photos."""

Names = Annotated[str, typer.Argument(metavar="A", help="Language model: an id, a folder or mini-lm.")]
Others = Annotated[str, typer.Argument(metavar="B", help="The other model: an id, a folder or mini-clip.")]
PresetName = Annotated[str, typer.Option(metavar="default|paper", help="How to fit the maps.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="Device of the models: cpu, cuda, cuda:1, mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@adapter_app.command()
def fit(
    a: Names,
    b: Others,
    preset: PresetName = "default",
    words: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE|english",
            help="UTF-8 text to fit on, repeatable; or english, the built-in word list.",
            show_default="the models' vocabularies",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write.", show_default="the cache")
    ] = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Fit the adapter from A to B, save it and print its report."""
    if words and out is None:
        raise ConfigError(
            "--words needs --out DIR: the cache is for adapters fitted on the models' own vocabularies"
        )
    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; give a folder")
    with _notices():
        model_a, model_b = _load(a, device), _load(b, device)

        from promptfuse.adapters import Adapter, english_words
        from promptfuse.adapters.cache import adapter_folder

        # This command always fits, even if the cache has the adapter.
        folder = out or adapter_folder(model_a, model_b, preset)
        with progress_bar(f"{a} -> {b}: words") as progress:
            corpus = english_words() if words == [Path("english")] else words or None
            adapter = Adapter.fit(model_a, model_b, preset, corpus, progress)
        adapter.save(folder, own=out is None)
        _show(adapter, folder, as_json)


@adapter_app.command()
def info(
    models: Annotated[
        list[str], typer.Argument(metavar="DIR | A B", help="An adapter's folder, or two models.")
    ],
    preset: PresetName = "default",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Print the report of an adapter.

    Name its folder, or the two models whose cached adapter to show.
    """
    if len(models) > 2:
        raise ConfigError(f"expected an adapter's folder or two models, got {len(models)} names")
    with _notices():
        if len(models) == 1:
            from promptfuse.adapters import Adapter

            folder = Path(models[0])
            adapter = Adapter.from_pretrained(folder)
        else:
            a, b = (_load(name, device) for name in models)

            from promptfuse.adapters import Adapter
            from promptfuse.adapters.cache import adapter_folder

            folder = adapter_folder(a, b, preset)
            found = Adapter.cached(a, b, preset)
            if found is None:
                raise AdapterError(
                    f"no adapter {a.name} -> {b.name} with the preset {preset} is cached; "
                    f"run promptfuse adapter fit {a.name} {b.name} --preset {preset}"
                )
            adapter = found
        _show(adapter, folder, as_json)


@adapter_app.command()
def evaluate(
    a: Names,
    b: Others,
    prompts: Annotated[
        int | None,
        typer.Option(
            parser=whole,
            metavar="N",
            help="How many texts A writes; each is cut at 4 lengths.",
            show_default=f"{TEXTS}, or the number of photos where that is more",
        ),
    ] = None,
    candidates: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="Next words to score for each text.")
    ] = 512,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PHOTO",
            help="Photo to score the texts by, for an image-text model; repeatable.",
            show_default="other texts that A writes",
        ),
    ] = None,
    transport: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Transport to measure besides lexical and t-product, such as effects; repeatable.",
            show_default="none",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="Random seed of the texts and words.")
    ] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Draw the table as a plot; needs matplotlib.", show_default="no plot"
        ),
    ] = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure how well transports predict B's loss.

    Words are drawn at random, and their true losses compared with the estimates: Spearman's rho, and how
    many of the true best 10 are among the estimated best 64 and 256.
    """
    if prompts is not None and prompts < 1:
        raise ConfigError(f"--prompts {prompts}: must be at least 1")
    if candidates < 16:
        raise ConfigError(f"--candidates {candidates}: must be at least 16")
    with _notices():
        if plot is not None:
            from promptfuse.adapters.diagnostics.plots import check_plot

            check_plot(plot)
        from promptfuse.objectives.transports import TRANSPORTS

        others = [name for name in dict.fromkeys(transport or ()) if name not in ("lexical", "t-product")]
        for name in others:
            if name not in TRANSPORTS:
                raise ConfigError(f"--transport {name}: is unknown; choose from {', '.join(TRANSPORTS)}")
        primary, model = _causal(a, device), _load(b, device)

        from promptfuse.adapters import Adapter
        from promptfuse.adapters.diagnostics import make_cases, measure

        count = prompts if prompts is not None else max(TEXTS, len(image or ()))
        cases = make_cases(primary, model, count, image or (), seed)
        adapters = {}
        for preset in ("paper", "default"):
            with progress_bar(f"{a} -> {b}, {preset}: words") as progress:
                adapters[f"t-product-{preset}"] = Adapter.for_models(primary, model, preset, progress)
        with progress_bar(f"{a} -> {b}: texts") as progress:
            report = measure(
                primary,
                model,
                cases,
                adapters,
                others=others,
                candidates=candidates,
                seed=seed,
                progress=progress,
            )
        if plot is not None:
            from promptfuse.adapters.diagnostics.plots import plot_fidelity

            plot_fidelity(report, plot)
        typer.echo(json.dumps(report.to_json()) if as_json else str(report))


def _load(name: str, device: str) -> Model:
    """Load a model on a device."""
    import torch

    from promptfuse.models import load_model

    try:
        return load_model(name, device=torch.device(device))
    except (RuntimeError, AssertionError) as error:
        # Torch reports this in several ways, in many lines.
        raise ConfigError(
            f"--device {device}: not usable here ({str(error).splitlines()[0]}); try cpu"
        ) from None


def _causal(name: str, device: str) -> CausalLM:
    """Load a language model on a device."""
    from promptfuse.models import CausalLM

    model = _load(name, device)
    if not isinstance(model, CausalLM):
        raise ModelError(
            f"{name} is a {model.kind} model; the first model proposes words and must be a causal LM"
        )
    return model


def _show(adapter: Adapter, folder: Path, as_json: bool) -> None:
    report = adapter.report()
    if as_json:
        row = {"folder": str(folder), "fingerprints": list(adapter.fingerprints), **report.to_json()}
        typer.echo(json.dumps(row, ensure_ascii=False))
    else:
        typer.echo(str(report))
        typer.echo(f"Folder: {folder}")


@contextmanager
def _notices() -> Iterator[None]:
    """Print what the adapters log only once the work is done, so that an error stands alone."""
    kept: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record.getMessage())

    logger, keeper = logging.getLogger("promptfuse.adapters"), Keeper(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(keeper)
    try:
        yield
    finally:
        logger.removeHandler(keeper)
        logger.propagate = propagate
    for line in kept:
        typer.echo(f"promptfuse: note: {' '.join(line.split())}", err=True)

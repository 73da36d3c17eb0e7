"""``promptfuse invert``: find texts for embeddings."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptfuse.cli._inversion_display import InversionDisplay, inversion_display
from promptfuse.cli._messages import complain, notes_not_logged
from promptfuse.cli._options import whole
from promptfuse.errors import ConfigError, ImageError, TextError

if TYPE_CHECKING:
    from promptfuse.tasks import Inversion
    from promptfuse.tasks.inversion_file import InversionFile
    from promptfuse.tasks.inversion_inputs import Item, Kind, Target
    from promptfuse.tasks.invert_many import Found


def invert(
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="MORE", help="Further inputs of the kind given.", show_default=False),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|TEXT",
            help="Invert the embeddings of texts: a file with one on each line, or a text; repeatable.",
            show_default="none",
        ),
    ] = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Invert the vectors of a .npy, .safetensors or .jsonl file; repeatable.",
            show_default="none",
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PHOTO",
            help="Invert the embeddings of photos by an image-text encoder; repeatable.",
            show_default="none",
        ),
    ] = None,
    models: Annotated[
        str,
        typer.Option(
            metavar="PRESET",
            help="Preset or .yaml file, whose language model and image-text model are used where no other is "
            "named.",
        ),
    ] = "mini",
    lm: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Language model that proposes words: an id or folder.",
            show_default="the preset's",
        ),
    ] = None,
    lm_prefix: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT|@FILE",
            help="Text that only the language model reads, first: e.g. a file of example texts.",
            show_default="nothing",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Encoder that made the embeddings: an id or folder.",
            show_default="the preset's image-text model",
        ),
    ] = None,
    encoder_command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Program that is the encoder: it reads JSON lists of texts, one a line, and writes a JSON "
            "list of numbers for each text.",
            show_default="none",
        ),
    ] = None,
    budget: Annotated[
        int,
        typer.Option(parser=whole, metavar="QUERIES", help="The most texts that the encoder reads for each."),
    ] = 2880,
    seconds: Annotated[
        float | None,
        typer.Option(metavar="N", help="The most seconds for each.", show_default="any"),
    ] = None,
    length: Annotated[
        int, typer.Option(parser=whole, metavar="TOKENS", help="The most tokens of a text.")
    ] = 32,
    style: Annotated[
        str,
        typer.Option(
            metavar="prose|prompt|words",
            help="Sentences, phrases with commas between them, or words alone.",
        ),
    ] = "prose",
    seed: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="Random seed, for methods that sample.")
    ] = 0,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Device of the models: cpu, cuda, cuda:1, mps.")
    ] = "cpu",
    workers: Annotated[
        int,
        typer.Option(parser=whole, metavar="N", help="Processes, each with its own models; same results."),
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Add each result to a file as soon as it is known; resumes an existing one.",
            show_default="none",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line, the summary last.")
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="Write a page that shows how the searches went.", show_default="no page"
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw similarity against queries.", show_default="no plot"),
    ] = None,
) -> None:
    """Find texts for embeddings: of texts, of photos, or from files.

    The exit code is 2 if nothing could be inverted. Embeddings can be read: treat them like the texts.
    """
    from promptfuse._utils.atomic_files import check_target
    from promptfuse.models.context import read_context
    from promptfuse.tasks.inversion import Inverter
    from promptfuse.tasks.text_encoders import CommandEncoder

    kind, given = _given(more or [], text, embedding, image)
    if workers < 1:
        raise ConfigError(f"--workers {workers}: must be at least 1")
    if encoder is not None and encoder_command is not None:
        raise ConfigError("--encoder and --encoder-command: give one of them")
    if trace is not None:
        check_target(trace, given, (".html", ".htm"))
    if plot is not None:
        from promptfuse.adapters.diagnostics.plots import check_plot

        check_plot(plot)
    items = _items(kind, given)
    with ExitStack() as stack:
        command = None
        if encoder_command is not None:
            command = CommandEncoder(encoder_command)
            stack.callback(command.close)
        make = partial(
            Inverter,
            models=models,
            encoder=command or encoder,
            lm=lm,
            lm_prefix=None if lm_prefix is None else read_context(lm_prefix),
            budget=budget,
            seconds=seconds,
            length=length,
            style=style,
            seed=seed,
            device=device,
        )
        inverter = make()
        file = None
        if out is not None:
            from promptfuse.tasks.inversion_file import InversionFile

            if out.resolve() in [Path(one).resolve() for one in given]:
                raise ConfigError(f"{out}: is one of the input files; give another name")
            file = stack.enter_context(InversionFile(out, inverter.settings()))
        run = _Run(kind, items, inverter, make, workers, as_json, trace is not None, file)
        try:
            run.carry_out()
        except KeyboardInterrupt:
            resume = f"; rerun the same command to resume {out}" if out is not None else ""
            typer.echo(f"promptfuse: interrupted, {len(run.found)} inputs done{resume}", err=True)
            raise typer.Exit(130) from None
    run.report(trace, plot)


def _given(
    more: list[str], text: list[str] | None, embedding: list[str] | None, image: list[str] | None
) -> tuple[Kind, list[str]]:
    """The kind of the inputs and all of them."""
    options: dict[Kind, list[str] | None] = {"text": text, "embedding": embedding, "image": image}
    kinds = [kind for kind, values in options.items() if values]
    if len(kinds) != 1:
        what = "give one of them" if kinds else "none is given; give one, e.g. --text 'A red bus.'"
        raise ConfigError(f"--text, --embedding and --image: {what}")
    return kinds[0], [*(options[kinds[0]] or []), *more]


def _items(kind: Kind, given: list[str]) -> list[Item]:
    """The inputs that files and texts name."""
    from promptfuse.tasks.inversion_inputs import image_items, text_items, vector_items

    if kind == "image":
        return image_items(given)
    read = text_items if kind == "text" else vector_items
    return [item for one in given for item in read(one)]


class _Run:
    """Inverts the inputs and tells of the results.

    Args:
        kind: what the inputs are.
        items: the inputs.
        inverter: the models and settings.
        make: makes the same inverter in another process.
        workers: how many processes.
        as_json: whether results are printed as JSON.
        keep: whether the searches' steps are kept.
        file: the file of results; None for none.
    """

    def __init__(
        self,
        kind: Kind,
        items: list[Item],
        inverter: Any,
        make: Any,
        workers: int,
        as_json: bool,
        keep: bool,
        file: InversionFile | None,
    ) -> None:
        self.kind, self.items, self.inverter, self.make = kind, items, inverter, make
        self.workers, self.as_json, self.keep, self.file = workers, as_json, keep, file
        self.found: list[Inversion] = []
        self.images: list[Any] = []
        self.errors: list[Exception] = []

    def carry_out(self) -> None:
        """Invert what is not in the file yet."""
        import torch

        from promptfuse.tasks.inversion_inputs import read_targets
        from promptfuse.tasks.invert_many import invert_targets

        targets, broken = read_targets(self.items, self.kind, self.inverter.encoder)
        for _, error in broken:
            self._fail(error)
        if not targets:
            return
        among = torch.stack([target.vector for target in targets])
        left = [target for target in targets if not self._known(target)]
        with inversion_display(len(targets)) as display, notes_not_logged():
            display.done = len(targets) - len(left)
            invert_targets(
                self.inverter,
                left,
                among,
                partial(self._deliver, display),
                workers=self.workers,
                keep_results=self.keep,
                on_step=display.step,
                make=self.make,
            )

    def _known(self, target: Target) -> bool:
        if self.file is None or not self.file.holds(target):
            return False
        self._keep(target, self.file.done[target.id])
        return True

    def _keep(self, target: Target, found: Inversion) -> None:
        self.found.append(found)
        self.images.append(target.image)

    def _deliver(self, display: InversionDisplay, target: Target, found: Found) -> None:
        display.next()
        if isinstance(found, ImageError | TextError):
            self._fail(found)
            return
        if isinstance(found, Exception):
            raise found
        self._keep(target, found)
        if self.file is not None:
            self.file.append(found)
        _show(found, self.as_json)

    def _fail(self, error: Exception) -> None:
        complain(error)
        self.errors.append(error)

    def report(self, trace: Path | None, plot: Path | None) -> None:
        """Write the page and the plot, and print the summary.

        Raises:
            typer.Exit: with code 2 if nothing could be inverted.
        """
        from promptfuse.tasks.inversion_summary import summarize

        if not self.found:
            raise typer.Exit(2)
        summary = summarize(self.found, len(self.errors))
        if trace is not None:
            from promptfuse.report.inversions.page import write_inversions

            write_inversions(trace, self.found, self.images, str(summary))
        if plot is not None:
            from promptfuse.report.inversions.plot import plot_inversions

            plot_inversions(self.found, plot)
        if self.as_json:
            typer.echo(json.dumps({"summary": summary.to_dict()}))
        else:
            typer.echo(str(summary), err=True)


def _show(found: Inversion, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
    elif sys.stdout is not None and sys.stdout.isatty():
        typer.secho(found.source or found.id, bold=True)
        typer.echo(f"  {found.text}")
        typer.secho(
            f"  cosine {found.similarity:.3f}  rank {found.rank} of {found.among}  "
            f"{found.queries:,} queries, {found.seconds:.1f} s",
            dim=True,
        )
    else:
        typer.echo(f"{found.id}\t{found.text}")

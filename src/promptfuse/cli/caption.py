"""``promptfuse caption``: caption photos from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptfuse._utils.values import weight_or_factor
from promptfuse.cli._display import search_display
from promptfuse.cli._messages import complain, notes_not_logged
from promptfuse.cli._options import LmOption, LmPrefix, listed, whole
from promptfuse.errors import ConfigError, ImageError, PromptfuseError, TextError

if TYPE_CHECKING:
    from promptfuse.search import Result
    from promptfuse.tasks import Captioner


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
            help="Models and settings: mini (embedded), smollm2 (from pip), paper (from the hub), or a .yaml "
            "file.",
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
        bool, typer.Option("--glue", help="Let the first new token continue the prefix's last word.")
    ] = False,
    effort: Annotated[
        str | None,
        typer.Option(
            metavar="fast|default|thorough",
            help="How many texts the search scores.",
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
            help="Weight of a term: fluency, image, sentiment or steer:LABEL; 2x is twice the automatic one; "
            "repeatable.",
            show_default="the preset's, see promptfuse models",
        ),
    ] = None,
    banned: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD,...", help="Words that captions must not have; repeatable.", show_default="none"
        ),
    ] = None,
    required: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PHRASE,...",
            help="Words or phrases that captions must have; repeatable.",
            show_default="none",
        ),
    ] = None,
    max_words: Annotated[
        int | None,
        typer.Option(parser=whole, metavar="N", help="The most words of a caption.", show_default="any"),
    ] = None,
    seed: Annotated[
        int, typer.Option(parser=whole, metavar="N", help="Random seed, for methods that sample.")
    ] = 0,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Device of the models: cpu, cuda, cuda:1, mps.")
    ] = "cpu",
    in_flight: Annotated[
        int,
        typer.Option(
            parser=whole, metavar="N", help="Photos to search for at a time: faster for many photos."
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
    """Caption photos by a search for words that the models agree on.

    The exit code is 2 if a photo failed, and 1 if a caption breaks --required.
    """
    weights = _weights(weight or [])
    for name, number in (
        ("steps", steps),
        ("beams", beams),
        ("candidates", candidates),
        ("max-words", max_words),
        ("in-flight", in_flight),
    ):
        if number is not None and number < 1:
            raise ConfigError(f"--{name} {number}: must be at least 1")

    from promptfuse._utils.atomic_files import check_target
    from promptfuse.models.context import read_context
    from promptfuse.report.search.page import Card, write_page
    from promptfuse.search import Constraints
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
        "constraints": Constraints(
            banned=tuple(listed(banned or [])), required=tuple(listed(required or [])), max_words=max_words
        ),
        "seed": seed,
    }
    done: list[tuple[str, Result]] = []
    failed = 0
    with notes_not_logged():
        for image, outcome in _outcomes(captioner, images, settings, in_flight):
            if not isinstance(outcome, Exception):
                done.append((image, outcome))
                _show(image, outcome, sentiment, steer or [], as_json)
                for note in outcome.notes:
                    typer.echo(f"promptfuse: {image}: {note}", err=True)
            elif isinstance(outcome, ImageError | TextError):
                # The other photos get their captions all the same; the exit code reports the failure.
                complain(outcome)
                failed += 1
            else:
                raise outcome
    if trace is not None and done:
        label = ", ".join([*([sentiment] if sentiment else []), *(steer or [])]) or "plain"
        cards = [Card(Path(image).name, image, [(label, result)]) for image, result in done]
        write_page(trace, "How promptfuse found these captions", cards)
    if failed:
        raise typer.Exit(2)
    if not all(result.satisfied for _, result in done):
        raise typer.Exit(1)


def _weights(pairs: list[str]) -> dict[str, float | str]:
    """The weights that ``TERM=VALUE`` options give, by term."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.rpartition("=")  # A steer's label may contain an equals sign.
        if not equals or not name:
            raise ConfigError(f"--weight {pair!r} is not TERM=VALUE; write e.g. --weight image=22")
        try:
            found[name] = weight_or_factor(value, name)
        except ConfigError:
            raise ConfigError(
                f"--weight {pair!r}: {value!r} is not a number; write e.g. --weight {name}=22, or {name}=2x"
            ) from None
    return found


def _outcomes(
    captioner: Captioner, images: Sequence[str], settings: dict[str, Any], in_flight: int
) -> Iterator[tuple[str, Result | Exception]]:
    """Each photo with its result or error, in order, as soon as it and those before it are done."""
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
    with search_display(image) as display:
        search = captioner.search(image, **settings)
        for _ in search:
            display.step(search)
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
            "satisfied": result.satisfied,
            "missing": result.missing,
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

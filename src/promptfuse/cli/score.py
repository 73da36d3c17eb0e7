"""``promptfuse score``: standard metrics for captions from any system."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptfuse.cli._options import (
    ClassifierJudge,
    ClipJudge,
    JudgeDevice,
    JudgeLimit,
    JudgeModel,
    JudgeTexts,
    KeepRejected,
    LmJudge,
    Resamples,
    listed,
    text_judge,
    whole,
)
from promptfuse.errors import ConfigError

if TYPE_CHECKING:
    from promptfuse.evaluation.metrics import Scores
    from promptfuse.evaluation.metrics.files import Predicted
    from promptfuse.evaluation.metrics.references import Referenced


def score(
    predictions: Annotated[
        str,
        typer.Argument(
            metavar="PREDICTIONS",
            help="JSON of [{image_id, caption}], JSON lines of {id, text}, or the folder of a run.",
        ),
    ],
    references: Annotated[
        str | None,
        typer.Argument(
            metavar="REFERENCES",
            help="JSON lines of {id, references}, COCO's captions, or any data set by path or name.",
            show_default="none: metrics that need no references",
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            "--metric",
            metavar="NAME,...",
            help="Metrics, or groups of them, to compute; repeatable.",
            show_default="all",
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the photos, for CLIPScore.",
            show_default="where the run or the data set has them",
        ),
    ] = None,
    clip: ClipJudge = None,
    lm: LmJudge = None,
    classifier: ClassifierJudge = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="Label that captions should have.", show_default="none"),
    ] = None,
    judge_texts: JudgeTexts = None,
    judge_model: JudgeModel = None,
    judge_limit: JudgeLimit = 3000,
    tokenizer: Annotated[
        str,
        typer.Option(
            metavar="auto|stanford|python",
            help="How to split texts into words; auto is stanford if there is Java, else python.",
        ),
    ] = "auto",
    per_caption: Annotated[
        Path | None,
        typer.Option(
            "--per-caption",
            metavar="FILE.jsonl",
            help="Write the values of each caption.",
            show_default="no file",
        ),
    ] = None,
    resamples: Resamples = 1000,
    seed: Annotated[
        int,
        typer.Option(
            parser=whole, metavar="N", help="Random seed of the bootstrap and of a judge's training texts."
        ),
    ] = 0,
    keep_rejected: KeepRejected = False,
    device: JudgeDevice = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Score captions: BLEU, ROUGE-L, CIDEr-D, CLIPScore and more.

    With Java also METEOR and SPICE. Each has a 95% bootstrap interval.
    """
    if resamples < 0 or seed < 0:
        raise ConfigError(f"--resamples and --seed must be at least 0, got {resamples} and {seed}")
    if tokenizer not in ("auto", "stanford", "python"):
        raise ConfigError(f"--tokenizer {tokenizer}: choose from: auto, stanford, python")
    if (label is None) != (classifier is None):
        raise ConfigError("--classifier MODEL and --label LABEL need each other; give both")
    if images is not None and clip is None:
        raise ConfigError(f"--images {images}: only CLIPScore reads photos; add --clip MODEL")
    names = None
    if metrics:
        names = listed(metrics)

    from promptfuse._utils.atomic_files import check_target
    from promptfuse.evaluation.metrics.base import Unavailable
    from promptfuse.evaluation.metrics.files import read_captions
    from promptfuse.evaluation.metrics.labelled_texts import label_and_path
    from promptfuse.evaluation.metrics.photo_files import find_photos
    from promptfuse.evaluation.metrics.references import Referenced, read_references
    from promptfuse.evaluation.metrics.selection import choose
    from promptfuse.evaluation.run_files import parts

    choose(names)
    if per_caption is not None:
        others = [label_and_path(source)[1] for source in judge_texts or ()]
        others += [references] if references is not None else []
        check_target(per_caption, [predictions, *others, *parts(predictions)])
    predicted = read_captions(predictions)
    if references is not None:
        written = read_references(references, images, keep_rejected=keep_rejected)
    else:
        written = Referenced(images=find_photos(images, predicted.texts) if images else {})
    settings = _judges(clip, lm, classifier, device) | {
        "text_judge": text_judge(judge_texts, judge_model, judge_limit, device, seed),
        "metrics": names,
        "label": label,
        "resamples": resamples,
        "seed": seed,
        "tokenizer": tokenizer,
    }
    if clip is not None:
        # First the given folder, then where the run had the photos, then where the data set has them.
        where = (predicted.images, written.images) if images else (written.images, predicted.images)
        settings["images"] = where[0] | where[1]
        if images:
            written.notices += written.photo_notices
    found = _score(predictions, references, predicted, written, settings)
    if names is not None and found.columns.keys() <= predicted.costs.keys():
        # None of the requested metrics could be computed.
        reasons = [one.reason for one in found.metrics.values() if isinstance(one, Unavailable)]
        # Captions may be in columns that are not read.
        about = [] if any(written.texts.values()) else written.notices
        raise ConfigError(
            "; ".join([f"{', '.join(names)}: {reasons[0] if reasons else 'nothing to score'}", *about])
        )
    typer.echo(json.dumps(found.to_dict(), ensure_ascii=False) if as_json else found.table())
    if per_caption is not None:
        from promptfuse._utils.atomic_files import atomic_write

        rows = [{**row, "text": predicted.texts[row["id"]]} for row in found.per_caption()]
        atomic_write(per_caption, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _judges(clip: str | None, lm: str | None, classifier: str | None, device: str) -> dict[str, Any]:
    """The judging models by role."""
    names = {"clip": clip, "lm": lm, "classifier": classifier}
    if not any(names.values()):
        return {}
    from promptfuse.models import load_model

    return {role: load_model(name, device=device) for role, name in names.items() if name is not None}


def _score(
    predictions: str,
    references: str | None,
    predicted: Predicted,
    written: Referenced,
    settings: dict[str, Any],
) -> Scores:
    """Score captions, and add what a run's files say of failures and costs."""
    from promptfuse.evaluation.metrics import score as score_captions

    if any(written.texts.values()) and not any(written.texts.get(id_) for id_ in predicted.texts):
        first, known = next(iter(predicted.texts)), next(iter(written.texts))
        raise ConfigError(
            f"{references} has no references for {first!r} or any other caption of {predictions} (its ids "
            f"look like {known!r}); add them, or use the captioned data set"
        )
    with _display() as show:
        found = score_captions(
            predicted.texts,
            written.texts,
            searched=predicted.searched,
            costs=predicted.costs,
            progress=show,
            **settings,
        )
    found = replace(found, notices=(*written.notices, *found.notices))
    if not predicted.failed:
        return found
    id_, reason = next(iter(predicted.failed.items()))
    count, total = len(predicted.failed), len(predicted.failed) + len(predicted.texts)
    failed = f"{count} of {total} photos failed and are left out, e.g. {id_!r}: {reason}"
    return replace(found, notices=(failed, *found.notices), left_out={**found.left_out, "failed": count})


@contextmanager
def _display() -> Iterator[Callable[[str], None] | None]:
    """Shows which metric is being computed: a line on a terminal, nothing elsewhere."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading") as status:
        yield lambda group: status.update(f"computing {group}")

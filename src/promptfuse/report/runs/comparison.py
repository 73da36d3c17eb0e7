"""Finding what of several runs can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from promptfuse.errors import ConfigError
from promptfuse.report.document import counted
from promptfuse.report.runs.folders import Run


@dataclass(frozen=True)
class Comparison:
    """What several runs have in common.

    Attributes:
        runs: in the order in which they were given.
        dataset: its name; empty if no run tells.
        ids: photos that every run captioned, in the order of the data set: the tables are about them.
        shown: photos that are done in every run, even if they failed there.
        references: captions that people wrote, by id; empty if there are none.
        notes: what a reader should know, a line each.
    """

    runs: Sequence[Run]
    dataset: str
    ids: Sequence[str]
    shown: Sequence[str]
    references: Mapping[str, Sequence[str]] = field(repr=False)
    notes: Sequence[str] = ()

    def image(self, photo: str) -> str:
        """Path or address of a photo."""
        return self.runs[0].predictions[photo].image


def compare(runs: Sequence[Run], references: str | None = None, keep_rejected: bool = False) -> Comparison:
    """Find the photos that runs have in common, and what people wrote about them.

    Args:
        runs: one or more.
        references: whatever ``promptfuse score`` takes; None for the data set that the runs name.
        keep_rejected: whether captions count that the data set marks as rejected; they also count if the runs
            kept them.

    Raises:
        ConfigError: if the runs have no photo in common, or the references cannot be read.
    """
    common = _common(runs)
    if not common:
        sets = "; ".join(f"{run.name} is on {_origin(run)}" for run in runs)
        raise ConfigError(f"the runs have no photo in common: {sets}; compare runs on the same data set")
    notes = [
        f"{run.name} has {counted(others, 'photo')} that other runs lack; left out."
        for run in runs
        if (others := len(run.predictions) - len(common))
    ]
    if notes:
        notes.insert(0, f"The runs are on different photos; the {len(common)} common ones are compared.")
    for run in runs:
        planned = run.manifest.get("photos")
        if isinstance(planned, int) and planned > len(run.predictions):
            notes.append(f"{run.name} is not finished: {len(run.predictions):,} of {planned:,} photos.")
    written, about = _references(runs, references, keep_rejected)
    notes += about
    # In the order of the data set: photos in flight end in any order.
    place = {id_: number for number, id_ in enumerate(written)}
    common = sorted(common, key=lambda id_: (place.get(id_, len(place)), id_))
    found = {id_: written[id_] for id_ in common if written.get(id_)}
    captioned = [id_ for id_ in common if all(run.predictions[id_].text is not None for run in runs)]
    if len(captioned) < len(common) and len(runs) > 1:
        failed = counted(len(common) - len(captioned), "photo")
        notes.append(f"{failed} failed in a run; the numbers cover the {len(captioned)} that all captioned.")
    if captioned and found.keys().isdisjoint(captioned):
        found = {}  # Of photos that failed.
    if found and (bare := [id_ for id_ in captioned if id_ not in found]):
        notes.append(f"{len(bare)} photos have no references; the numbers are about the others.")
        captioned = [id_ for id_ in captioned if id_ in found]
    if not found and references is not None:
        raise ConfigError(
            f"{references} has no references for {(captioned or common)[0]!r} or any other photo of the "
            f"runs, its ids are like {next(iter(written))!r}; add them, or use the captioned data set"
        )
    if not found and written:
        notes.append("The references are about photos that are not in the runs; none is used.")
    dataset = next((str(run.data["name"]) for run in runs if run.data.get("name")), "")
    return Comparison(runs, dataset, captioned, common, found, notes)


def _common(runs: Sequence[Run]) -> list[str]:
    """Ids that all runs have a line for, about the same photo."""

    def photos(run: Run) -> dict[str, str]:
        return {id_: _file(one.image) for id_, one in run.predictions.items()}

    first, *others = map(photos, runs)
    return [id_ for id_, name in first.items() if all(other.get(id_) == name for other in others)]


def _file(image: str) -> str:
    """A photo's file name: runs on two machines have it in different folders."""
    return PurePosixPath(image.replace("\\", "/")).name


def _origin(run: Run) -> str:
    name, source = run.data.get("name"), run.data.get("source")
    if not (name or source):
        return f"an unnamed data set ({_file(next(iter(run.predictions.values())).image)}, ...)"
    return f"{name or source} ({source})" if name and source else str(name or source)


def _references(
    runs: Sequence[Run], given: str | None, keep_rejected: bool
) -> tuple[dict[str, list[str]], list[str]]:
    """What people wrote by id, in the order of the data set, and what there is to say about it."""
    from promptfuse.evaluation.metrics.references import read_references

    keep_rejected = keep_rejected or any(run.manifest.get("keep_rejected") for run in runs)
    sources: list[tuple[str, str | None]] = [(given, None)] if given is not None else []
    if given is None:
        # First the split alone, since a data set may be a hundred times as large.
        sources = [
            (str(run.data["source"]), split if isinstance(split, str) else None)
            for run in runs
            if run.data.get("source")
            for split in (run.data.get("split"), None)
        ]
    reason = "the data set has no captions"
    for source, split in dict.fromkeys(sources):
        try:
            found = read_references(source, split=split, keep_rejected=keep_rejected)
        except ConfigError as error:
            if given is not None:
                raise
            reason = str(error)
            continue
        if any(found.texts.values()):
            return found.texts, [f"References: {notice}." for notice in found.notices]
        if given is not None:
            about = "".join(f"; {notice}" for notice in found.notices)
            raise ConfigError(f"{given}: has no captions; give a data set with references{about}")
    if not sources:
        return {}, ["The runs do not say which data set they are on; give its captions with --references."]
    return {}, [f"No references: {reason}. Give another file with --references."]

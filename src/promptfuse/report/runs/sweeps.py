"""Runs that differ in one number, such as the weight of a sentiment, as curves."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from promptfuse.evaluation.metrics import Score
from promptfuse.evaluation.metrics.registry import JUDGED
from promptfuse.report.document import Key
from promptfuse.report.runs.folders import Run, steer_parts
from promptfuse.report.runs.measure import ACCURACY, LIKELY, OBJECTIVE, SIMILARITY, Measured
from promptfuse.report.runs.plots import Mark, colour, scatter

STEERING = ("sentiment", "steer")
"""How the settings that steer captions begin."""

FEWEST = 3
"""Runs that make a curve; of fewer the tables say enough."""


class Sweep(NamedTuple):
    """Runs that differ in one number.

    Attributes:
        setting: which, by dotted keys.
        name: what tells this sweep from others over the same setting.
        label: that captions are steered to; empty if the number is no weight of a label.
        steps: the number and the run's place, in ascending order.
    """

    setting: str
    name: str
    label: str
    steps: Sequence[tuple[float, int]]


def find_sweeps(runs: Sequence[Run]) -> list[Sweep]:
    """All groups of runs that differ in one number.

    A run without the label, and all else alike, is at weight zero of a sweep over the label's weight.
    """
    settings = [_settings(run) for run in runs]
    groups: dict[tuple[str, frozenset[tuple[str, Hashable]]], list[tuple[float, int]]] = {}
    for number, own in enumerate(settings):
        for key, value in own.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                rest = frozenset(item for item in own.items() if item[0] != key)
                groups.setdefault((key, rest), []).append((float(value), number))
    found = []
    for (key, rest), steps in groups.items():
        if key.startswith(STEERING):
            without = {item for item in rest if key.startswith("steer.") or item[0] != "sentiment"}
            steps += [(0.0, number) for number, own in enumerate(settings) if set(own.items()) == without]
        if len({value for value, _ in steps}) > 1:
            found.append((key, dict(rest), sorted(steps)))
    return [
        Sweep(key, _name(rest, [other for name, other, _ in found if name == key]), _label(key, rest), steps)
        for key, rest, steps in found
    ]


def _settings(run: Run) -> dict[str, Hashable]:
    """A run's settings; the weight of its sentiment even where it is the preset's."""
    found: dict[str, Hashable] = {}
    for key, value in leaves(run.settings):
        # A steer is one text: MODEL:LABEL=WEIGHT.
        name, weight = steer_parts(str(value)) if key.startswith("steer.") else ("", None)
        if weight is None:
            found[key] = value
        else:
            found[f"steer.{name}"] = weight
    weights = next((one.weights for one in run.predictions.values() if one.weights), {})
    if found.get("sentiment") is not None and "sentiment" in weights:
        found.setdefault("sentiment_weight", weights["sentiment"])
    return found


def leaves(values: Any, key: str = "") -> Iterator[tuple[str, Hashable]]:
    """The values of nested fields by dotted keys, lists too."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, list):
        for place, value in enumerate(values):
            yield from leaves(value, f"{key}.{place}")
    else:
        yield key, values


def sweep_plots(measured: Measured) -> Markup:
    """Curves of all sweeps; empty if there is none."""
    sweeps = find_sweeps(measured.comparison.runs)
    parts: list[Markup] = []
    for setting in dict.fromkeys(sweep.setting for sweep in sweeps):
        chosen = [sweep for sweep in sweeps if sweep.setting == setting]
        if setting.startswith(STEERING):
            # What the captions lose as more of them have the label.
            verdicts = _verdicts(measured, chosen)
            parts += [_curves(measured, chosen, verdicts, across) for across in (SIMILARITY, "cider_d")]
        elif chosen := [sweep for sweep in chosen if len(sweep.steps) >= FEWEST]:
            parts += [_curves(measured, chosen, [up] * len(chosen)) for up in ("cider_d", OBJECTIVE)]
    return Markup().join(parts)


def _verdicts(measured: Measured, sweeps: Sequence[Sweep]) -> list[str]:
    """The columns that tell how many captions have each sweep's label, by the same judge for all."""
    names = {name.casefold(): name for name in measured.names()}
    trained = [names.get(f"{JUDGED}_{sweep.label}".casefold()) for sweep in sweeps]
    found = [name for name in trained if name is not None]
    if len(found) == len(sweeps):
        return found
    return [
        names.get(f"{ACCURACY}.{sweep.label}".casefold())
        or LIKELY + (f"steer:{sweep.label}" if sweep.setting.startswith("steer.") else "sentiment")
        for sweep in sweeps
    ]


def _curves(
    measured: Measured, sweeps: Sequence[Sweep], ups: Sequence[str], across: str | None = None
) -> Markup:
    """A curve for each sweep over the same setting; nothing where there are too few numbers.

    Args:
        measured: the runs.
        sweeps: over the same setting.
        ups: the vertical column of each.
        across: the horizontal column; None for the setting itself.
    """
    right, titles = sweeps[0].setting, dict[str, None]()
    lines: list[tuple[str, list[Mark]]] = []
    for place, (sweep, up) in enumerate(zip(sweeps, ups, strict=True)):
        line = []
        for value, run in sweep.steps:
            setting = Score(sweep.setting, "neither", value, None, None, 1)
            x = setting if across is None else measured.score(run, across)
            y = measured.score(run, up)
            if x is not None and y is not None:
                right = x.title
                titles[y.title] = None
                line.append(Mark(f"{value:g}", colour(place), x, y))
        lines.append((colour(place), line))
    marks = [mark for _, line in lines for mark in line]
    if len(marks) < 2:
        return Markup()
    # Curves of two labels share an axis that is named after neither of them.
    upwards = "share with the label" if len(titles) > 1 else "".join(titles)
    against = "" if across is None else f" against {right}"
    return scatter(
        f"{upwards}{against} as {sweeps[0].setting} grows",
        marks,
        right,
        upwards,
        lines=lines,
        legend=[Key(sweep.name, colour(place)) for place, sweep in enumerate(sweeps)],
        note="" if across is None else f"The numbers at the points are {sweeps[0].setting}.",
        log_x=None if across is None else False,  # Two metrics are compared by differences, not ratios.
    )


def _label(setting: str, rest: Mapping[str, Hashable]) -> str:
    """The label that a setting is the weight of."""
    return setting.rpartition(":")[2] if setting.startswith("steer.") else str(rest.get("sentiment", ""))


def _name(rest: Mapping[str, Hashable], others: Sequence[Mapping[str, Hashable]]) -> str:
    """The settings that tell a sweep from others."""
    different = [key for key in rest if any(other.get(key) != rest[key] for other in others)]
    return ", ".join(str(rest[key]) for key in different) or "runs that differ in nothing else"

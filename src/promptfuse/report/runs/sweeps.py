"""Runs that differ in one number, such as the weight of a sentiment, as curves."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from promptfuse.evaluation.metrics import Score
from promptfuse.evaluation.metrics.registry import JUDGED
from promptfuse.report.document import Key
from promptfuse.report.runs.folders import Run, steer_parts
from promptfuse.report.runs.measure import ACCURACY, LIKELY, OBJECTIVE, SIMILARITY, Measured
from promptfuse.report.runs.plots import Mark, colour, scatter

STEERING = ("sentiment", "steer")
"""What the settings that colour captions begin with."""

FEWEST = 3
"""Runs that make a curve; with fewer the tables say it all."""


@dataclass(frozen=True)
class Sweep:
    """Runs that differ in one number.

    Attributes:
        setting: which, by dotted keys.
        name: what tells this sweep from others over the same setting.
        label: that captions are drawn to; empty if the number is no weight of a label.
        steps: the number and the run's place, by growing number.
    """

    setting: str
    name: str
    label: str
    steps: Sequence[tuple[float, int]]

    @property
    def steers(self) -> bool:
        """Whether the number is the weight of what colours captions."""
        return self.setting.startswith(STEERING)


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
        parts += _steering(measured, chosen) if chosen[0].steers else _plain(measured, chosen)
    return Markup().join(parts)


def _steering(measured: Measured, sweeps: Sequence[Sweep]) -> Iterator[Markup]:
    """What the captions lose as more of them have the label."""
    names = measured.names()
    trained = [_column(measured, f"{JUDGED}_{sweep.label}") for sweep in sweeps]
    # Either of all, so that the curves have one unit.
    judges = [name for name in trained if name is not None]
    if len(judges) < len(sweeps):
        judges = [_judge(measured, sweep) for sweep in sweeps]
    for against in (SIMILARITY, "cider_d"):
        if against in names:
            yield _curve(measured, sweeps, against, judges)


def _label(setting: str, rest: Mapping[str, Hashable]) -> str:
    """The label that a setting is the weight of."""
    return setting.rpartition(":")[2] if setting.startswith("steer.") else str(rest.get("sentiment", ""))


def _judge(measured: Measured, sweep: Sweep) -> str:
    """The column that tells how many captions have the sweep's label."""
    found = _column(measured, f"{ACCURACY}.{sweep.label}")
    return found or LIKELY + (f"steer:{sweep.label}" if sweep.setting.startswith("steer.") else "sentiment")


def _column(measured: Measured, name: str) -> str | None:
    """A column by its name in any case, if there is one."""
    return next((found for found in measured.names() if found.casefold() == name.casefold()), None)


def _plain(measured: Measured, sweeps: Sequence[Sweep]) -> Iterator[Markup]:
    """What a setting does to the captions."""
    names = measured.names()
    curves = [sweep for sweep in sweeps if len(sweep.steps) >= FEWEST]
    for name in ("cider_d", OBJECTIVE):
        if name in names and curves:
            yield _curve(measured, curves, None, [name] * len(curves))


def _curve(measured: Measured, sweeps: Sequence[Sweep], across: str | None, ups: Sequence[str]) -> Markup:
    """A curve for each sweep.

    Args:
        measured: the runs.
        sweeps: over the same setting.
        across: the column to the right; None for the setting itself.
        ups: the column upwards, of each.
    """
    marks: list[Mark] = []
    lines = []
    right, upwards = sweeps[0].setting, ""
    for place, (sweep, up) in enumerate(zip(sweeps, ups, strict=True)):
        line = []
        for value, run in sweep.steps:
            setting = Score(sweep.setting, "neither", value, None, None, 1)
            x = setting if across is None else measured.score(run, across)
            y = measured.score(run, up)
            if x is not None and y is not None:
                right = x.title
                # Curves of two labels share an axis that is named after none of them.
                upwards = y.title if upwards in ("", y.title) else "share with the label"
                line.append(Mark(f"{value:g}", colour(place), x, y))
        marks += line
        lines.append((colour(place), line))
    if len(marks) < 2:
        return Markup()
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


def _name(rest: Mapping[str, Hashable], others: Sequence[Mapping[str, Hashable]]) -> str:
    """The settings that tell a sweep from others."""
    different = [key for key in rest if any(other.get(key) != rest[key] for other in others)]
    return ", ".join(str(rest[key]) for key in different) or "runs that differ in nothing else"

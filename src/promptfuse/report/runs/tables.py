"""Tables of runs by metrics, with intervals and ranks: what the page and the text files show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from promptfuse.evaluation.metrics import Unavailable
from promptfuse.evaluation.metrics.base import Better
from promptfuse.evaluation.metrics.registry import JUDGED
from promptfuse.report.runs.measure import LIKELY, OBJECTIVE, SIMILARITY, TERM, Measured

COST = "Cost"
FAMILIES: Mapping[str, Sequence[str]] = {
    "Agreement with references": ("bleu", "rouge", "meteor", "cider", "spice"),
    "Judged by models": ("clipscore", "refclipscore", "perplexity", "sentiment", JUDGED),
    "Search objective": (OBJECTIVE, TERM, SIMILARITY, LIKELY),
    "Length and diversity": ("words", "distinct", "vocabulary", "unique", "self_cider", "pairwise"),
    COST: ("seconds", "exact_evaluations"),
}
"""Tables and what the names of their columns begin with; others are in a table at the end."""

OTHERS = "Other metrics"

Rank = Literal["best", "tie", ""]


class Standing(NamedTuple):
    """How the runs rank in one column.

    Attributes:
        best: the runs with the best number; none where neither direction is better.
        ties: other runs that are not significantly different from the best: the interval of the paired
            difference contains zero.
    """

    best: frozenset[int] = frozenset()
    ties: frozenset[int] = frozenset()


class Head(NamedTuple):
    """A column's title, which direction is better, and what a reader should know."""

    title: str
    better: Better
    note: str = ""


class Cell(NamedTuple):
    """One number of one run, as it is written.

    Attributes:
        text: the number; a dash where there is none.
        hover: what else is known: the difference from the first run, or why there is no number.
        value: the number itself, for sorting; None where there is none.
        interval: its ends; None where there is none.
        rank: among the runs.
        whisker: left end, number and right end in percent of the column's range; None where there is no
            interval or no other run.
    """

    text: str
    hover: str = ""
    value: float | None = None
    interval: tuple[str, str] | None = None
    rank: Rank = ""
    whisker: tuple[float, float, float] | None = None


class Table(NamedTuple):
    """Columns of one family: a row of cells for each run, and the titles of missing columns by the reason."""

    family: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    reasons: Mapping[str, Sequence[str]]


def tables(measured: Measured) -> list[Table]:
    """All tables; those without columns, which only say what is missing, come last."""
    families: dict[str, list[str]] = {family: [] for family in (*FAMILIES, OTHERS)}
    for name in measured.names():
        home = next((family for family, starts in FAMILIES.items() if name.startswith(tuple(starts))), OTHERS)
        families[home].append(name)
    found = [_table(measured, family, names) for family, names in families.items()]
    return sorted((one for one in found if one.heads or one.reasons), key=lambda one: not one.heads)


def standing(measured: Measured, name: str) -> Standing:
    """Which run is best in a column, and which are not significantly different from it."""
    found = [(run, score) for run, score in enumerate(measured.column(name)) if score is not None]
    better = measured.better(name)
    if len(found) < 2 or better == "neither":
        return Standing()
    value = (max if better == "higher" else min)(score.value for _, score in found)
    equal = frozenset(run for run, score in found if score.value == value)
    ties = []
    for run, _ in found:
        between = measured.difference(run, min(equal), name)
        if run not in equal and between is not None and between.low <= 0 <= between.high:
            ties.append(run)
    return Standing(equal, frozenset(ties))


def why_missing(measured: Measured, names: Sequence[str]) -> dict[str, list[str]]:
    """The titles of columns that some or all runs lack, by the reason."""
    reasons: dict[str, list[str]] = {}
    for name in names:
        for run, found in zip(measured.comparison.runs, measured.scores, strict=True):
            if isinstance(one := found.get(name), Unavailable):
                title = one.title + (f" of {run.name}" if any(measured.column(name)) else "")
                titles = reasons.setdefault(one.reason, [])
                if title not in titles:
                    titles.append(title)
    return reasons


def _table(measured: Measured, family: str, names: Sequence[str]) -> Table:
    # The image term is shown as a similarity.
    shown = [name for name in names if any(measured.column(name)) and name != f"{TERM}image"]
    notes = {name: next(score.note for score in measured.column(name) if score) for name in shown}
    heads = [Head(measured.title(name), measured.better(name), notes[name]) for name in shown]
    columns = [_cells(measured, name) for name in shown]
    rows = [[column[run] for column in columns] for run in range(len(measured.scores))]
    return Table(family, heads, rows, why_missing(measured, names))


def _cells(measured: Measured, name: str) -> list[Cell]:
    """The cells of a column, a run each."""
    scores, ranks = measured.column(name), standing(measured, name)
    values = [score.value for score in scores if score]
    bounds = [(one.low, one.high) for one in scores if one and one.low is not None and one.high is not None]
    digits = _digits(values, max((high - low for low, high in bounds), default=0.0) / 2)
    least, most = min(values + [low for low, _ in bounds]), max(values + [high for _, high in bounds])
    found = []
    for run, score in enumerate(scores):
        if score is None:
            missing = measured.scores[run].get(name)
            found.append(
                Cell("–", missing.reason if isinstance(missing, Unavailable) else "the run lacks it")
            )
            continue
        hover = ""
        if run and (between := measured.difference(run, 0, name)) is not None:
            value, low, high = (f"{end:+,.{digits}f}" for end in (between.value, between.low, between.high))
            hover = f"{value} against {measured.comparison.runs[0].name}, paired interval {low} to {high}"
        rank: Rank = "best" if run in ranks.best else "tie" if run in ranks.ties else ""
        interval = whisker = None
        if score.low is not None and score.high is not None:
            interval = _number(score.low, digits), _number(score.high, digits)
            if len(scores) > 1 and most > least:
                left, at, right = (
                    100 * (end - least) / (most - least) for end in (score.low, score.value, score.high)
                )
                whisker = left, at, right
        found.append(Cell(_number(score.value, digits), hover, score.value, interval, rank, whisker))
    return found


def _digits(values: Sequence[float], half: float) -> int:
    """Digits after the point that show two of the widest interval's half."""
    whole = not half and all(value == round(value) for value in values)
    size = 10.0 if whole else half or max(map(abs, values)) / 100
    return min(4, max(0, 1 - math.floor(math.log10(size)))) if size > 0 else 0


def _number(value: float, digits: int) -> str:
    """A number with separated thousands and a true minus sign."""
    return f"{value:,.{digits}f}".replace("-", "−")

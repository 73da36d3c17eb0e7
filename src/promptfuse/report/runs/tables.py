"""Tables of runs by metrics, with intervals and ranks: what the page and the text files show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from promptfuse.evaluation.metrics import Score, Unavailable
from promptfuse.evaluation.metrics.base import Better
from promptfuse.evaluation.metrics.selection import JUDGED
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


@dataclass(frozen=True)
class Standing:
    """How the runs rank in one column.

    Attributes:
        best: the runs with the best number; none where neither direction is better.
        ties: other runs that are not significantly different from the best: the interval of the paired
            difference contains zero.
    """

    best: frozenset[int] = frozenset()
    ties: frozenset[int] = frozenset()

    def rank(self, run: int) -> Rank:
        """Of one run."""
        return "best" if run in self.best else "tie" if run in self.ties else ""


class Whisker(NamedTuple):
    """An interval and its number on the scale of a column, in percent of its width."""

    left: float
    width: float
    at: float


@dataclass(frozen=True)
class Cell:
    """One number of one run, as it is written.

    Attributes:
        text: the number; a dash where there is none.
        interval: its ends; None where there is none.
        rank: among the runs.
        value: the number itself, for sorting; None where there is none.
        hover: what else is known: the difference from the first run, or why there is no number.
        whisker: the interval as a bar; None where there is none or it is the only one.
    """

    text: str
    interval: tuple[str, str] | None = None
    rank: Rank = ""
    value: float | None = None
    hover: str = ""
    whisker: Whisker | None = None

    @property
    def brackets(self) -> str:
        """The interval in brackets, or nothing."""
        return f"[{', '.join(self.interval)}]" if self.interval else ""


class Head(NamedTuple):
    """A column's title, which direction is better, and what a reader has to know."""

    title: str
    better: Better
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Columns of one family.

    Attributes:
        family: the heading.
        heads: the columns; none if no run has any.
        rows: the cells of each run.
        reasons: the titles of missing columns, by the reason.
    """

    family: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    reasons: Mapping[str, Sequence[str]] = field(default_factory=dict)


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
    columns = [_cells(measured, name) for name in shown]
    rows = [[column[run] for column in columns] for run in range(len(measured.scores))]
    return Table(family, [_head(measured, name) for name in shown], rows, why_missing(measured, names))


def _head(measured: Measured, name: str) -> Head:
    note = next(score.note for score in measured.column(name) if score is not None)
    return Head(measured.title(name), measured.better(name), note)


def _cells(measured: Measured, name: str) -> list[Cell]:
    """The cells of a column, a run each."""
    scores, ranks = measured.column(name), standing(measured, name)
    scale = Scale.of(scores)
    found = []
    for run, score in enumerate(scores):
        if score is None:
            missing = measured.scores[run].get(name)
            reason = missing.reason if isinstance(missing, Unavailable) else "the run does not have it"
            found.append(Cell("–", hover=reason))
            continue
        interval = None
        if score.low is not None and score.high is not None:
            interval = scale.text(score.low), scale.text(score.high)
        hover = ""
        if run and (between := measured.difference(run, 0, name)) is not None:
            value, low, high = (
                f"{end:+,.{scale.digits}f}" for end in (between.value, between.low, between.high)
            )
            hover = f"{value} against {measured.comparison.runs[0].name}, paired interval {low} to {high}"
        whisker = scale.whisker(score) if len(scores) > 1 else None
        found.append(Cell(scale.text(score.value), interval, ranks.rank(run), score.value, hover, whisker))
    return found


class Scale(NamedTuple):
    """How a column's numbers are written and drawn: the ends of its whiskers, and digits after the point."""

    low: float
    high: float
    digits: int

    @classmethod
    def of(cls, scores: Sequence[Score | None]) -> Scale:
        """From a column; two digits of the interval's half are shown."""
        given = [score for score in scores if score is not None]
        values = [score.value for score in given]
        bounds = [(one.low, one.high) for one in given if one.low is not None and one.high is not None]
        low = min([*values, *(bound[0] for bound in bounds)])
        high = max([*values, *(bound[1] for bound in bounds)])
        half = max((bound[1] - bound[0] for bound in bounds), default=0.0) / 2
        whole = not half and all(value == round(value) for value in values)
        size = 10.0 if whole else half or max(abs(value) for value in values) / 100
        digits = 1 - math.floor(math.log10(size)) if size > 0 else 0
        return cls(low, high, min(4, max(0, digits)))

    def text(self, value: float) -> str:
        """A number with separated thousands and a true minus sign."""
        return f"{value:,.{self.digits}f}".replace("-", "−")

    def whisker(self, score: Score) -> Whisker | None:
        """The interval as a bar among those of the column."""
        wide = self.high - self.low
        if wide <= 0 or score.low is None or score.high is None:
            return None
        left, at, right = (100 * (value - self.low) / wide for value in (score.low, score.value, score.high))
        return Whisker(left, right - left, at)

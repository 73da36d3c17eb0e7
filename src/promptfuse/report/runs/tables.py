"""Tables of runs by numbers, with intervals, and which are best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from promptfuse.evaluation.metrics import Score, Unavailable
from promptfuse.evaluation.metrics.registry import JUDGED
from promptfuse.report.runs.measure import LIKELY, OBJECTIVE, SIMILARITY, TERM, Measured
from promptfuse.report.runs.plots import colour

FAMILIES: Mapping[str, Sequence[str]] = {
    "Agreement with what people wrote": ("bleu", "rouge", "meteor", "cider", "spice"),
    "Judged by models": ("clipscore", "refclipscore", "perplexity", "sentiment", JUDGED),
    "What was searched for": (OBJECTIVE, TERM, SIMILARITY, LIKELY),
    "The captions by themselves": ("words", "distinct", "vocabulary", "unique", "self_cider", "pairwise"),
    "What it cost": ("seconds", "exact_evaluations"),
}
"""Tables and what the names of their columns begin with; others are in a table at the end."""

OTHERS = "Other numbers"


@dataclass(frozen=True)
class Standing:
    """How the runs stand in one column.

    Attributes:
        best: the runs with the best number; none where there is no better or worse.
        ties: other runs whose paired difference from the best has zero in its interval.
    """

    best: frozenset[int] = frozenset()
    ties: frozenset[int] = frozenset()


def standing(measured: Measured, name: str) -> Standing:
    """Which run is best in a column, and which cannot be told from it."""
    scores = [measured.score(run, name) for run in range(len(measured.scores))]
    found = [(number, score) for number, score in enumerate(scores) if score is not None]
    better = measured.better(name)
    if len(found) < 2 or better == "neither":
        return Standing()
    value = (max if better == "higher" else min)(score.value for _, score in found)
    equal = frozenset(run for run, score in found if score.value == value)
    ties = []
    for number, _ in found:
        between = measured.difference(number, min(equal), name)
        if number not in equal and between is not None and between.low <= 0 <= between.high:
            ties.append(number)
    return Standing(equal, frozenset(ties))


def families(names: Sequence[str]) -> dict[str, list[str]]:
    """Columns by their table, in the order of tables; tables without columns are left out."""
    found: dict[str, list[str]] = {family: [] for family in (*FAMILIES, OTHERS)}
    for name in names:
        home = next((family for family, starts in FAMILIES.items() if name.startswith(tuple(starts))), OTHERS)
        found[home].append(name)
    return {family: own for family, own in found.items() if own}


def tables(measured: Measured) -> str:
    """All tables as HTML; what is missing without a table of its own comes last."""
    parts, missing = [], []
    for family, names in families(measured.names()).items():
        shown = [name for name in names if _has(measured, name) and name != f"{TERM}image"]
        reasons = _reasons(measured, names)
        heading = f'<div class="family"><h3>{escape(family)}</h3>'
        if shown:
            parts.append(f"{heading}{_table(measured, family, shown)}{reasons}</div>")
        elif reasons:
            missing.append(f"{heading}{reasons}</div>")
    return f'<div class="families">{"".join([*parts, *missing])}</div>' if parts or missing else ""


def failures(measured: Measured, run: int) -> int:
    """How many of a run's photos have no caption."""
    return len(measured.comparison.runs[run].failures)


def _has(measured: Measured, name: str) -> bool:
    return any(measured.score(run, name) is not None for run in range(len(measured.scores)))


def _table(measured: Measured, family: str, names: Sequence[str]) -> str:
    standings = {name: standing(measured, name) for name in names}
    scales = {name: Scale.of([measured.score(run, name) for run in range(len(measured.scores))])
              for name in names}  # fmt: skip
    cost = family == "What it cost"
    heads = "".join(_head(measured, name) for name in names)
    heads += '<th scope="col" data-better="lower">photos failed</th>' if cost else ""
    rows = []
    for number, run in enumerate(measured.comparison.runs):
        cells = "".join(_cell(measured, number, name, standings[name], scales[name]) for name in names)
        if cost:
            lost = failures(measured, number)
            cells += f'<td data-value="{lost}"><b>{lost:,}</b><small>of {len(run.predictions):,}</small></td>'
        rows.append(f"<tr>{run_head(measured, number)}{cells}</tr>")
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(family)}"><table class="numbers">'
        f'<caption class="hidden">{escape(family)}</caption>'
        f'<thead><tr><th scope="col">run</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def run_head(measured: Measured, number: int) -> str:
    """The cell that a run's row begins with."""
    name = escape(measured.comparison.runs[number].name)
    return f'<th scope="row"><i class="dot" style="background:{colour(number)}"></i>{name}</th>'


def title_of(measured: Measured, name: str) -> str:
    """What a column is called."""
    return next((found[name].title for found in measured.scores if name in found), name)


def _head(measured: Measured, name: str) -> str:
    found = next(one for scores in measured.scores if isinstance(one := scores.get(name), Score))
    better = measured.better(name)
    arrow = {"higher": "↑", "lower": "↓", "neither": ""}[better]
    words = {"higher": "higher is better", "lower": "lower is better", "neither": ""}[better]
    note = ". ".join(part for part in (words, found.note) if part)
    mark = f'<span class="arrow" aria-hidden="true">{arrow}</span>' if arrow else ""
    start = f'<th scope="col" data-better="{better}" title="{escape(note)}">'
    return f"{start}{escape(title_of(measured, name))}{mark}</th>"


def _cell(measured: Measured, run: int, name: str, standing: Standing, scale: Scale) -> str:
    score = measured.score(run, name)
    if score is None:
        found = measured.scores[run].get(name)
        reason = found.reason if isinstance(found, Unavailable) else "the run does not have it"
        return f'<td class="none" title="{escape(reason)}">–</td>'
    digits = scale.digits
    text = number(score.value, digits)
    kind = " class=best" if run in standing.best else " class=tie" if run in standing.ties else ""
    hover = ""
    between = measured.difference(run, 0, name) if run else None
    if between is not None:
        first = measured.comparison.runs[0].name
        hover = (
            f"{between.value:+,.{digits}f} against {first}, paired interval "
            f"{between.low:+,.{digits}f} to {between.high:+,.{digits}f}"
        )
    interval = ""
    if score.low is not None and score.high is not None:
        interval = f"<small>{number(score.low, digits)} – {number(score.high, digits)}</small>"
        # One interval alone has nothing to stand beside.
        interval += scale.whisker(score) if len(measured.scores) > 1 else ""
    return f'<td{kind} data-value="{score.value!r}" title="{escape(hover)}"><b>{text}</b>{interval}</td>'


def number(value: float, digits: int) -> str:
    """With thousands parted, and a true minus sign."""
    return f"{value:,.{digits}f}".replace("-", "−")


@dataclass(frozen=True)
class Scale:
    """What a column's numbers are written and drawn by.

    Attributes:
        low: left end of the whiskers.
        high: right end.
        digits: behind the point.
    """

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

    def whisker(self, score: Score) -> str:
        """The interval as a bar among those of the column."""
        wide = self.high - self.low
        if wide <= 0 or score.low is None or score.high is None:
            return ""
        left, at, right = (100 * (value - self.low) / wide for value in (score.low, score.value, score.high))
        return (
            f'<span class="whisker" aria-hidden="true"><i style="left:{left:.1f}%;width:{right - left:.1f}%">'
            f'</i><u style="left:{at:.1f}%"></u></span>'
        )


def _reasons(measured: Measured, names: Sequence[str]) -> str:
    """Why columns are missing, a line for each reason."""
    lines = "".join(
        f"<li><b>{escape(', '.join(titles))}</b>: {escape(reason)}</li>"
        for reason, titles in why_missing(measured, names).items()
    )
    return f'<ul class="reasons">{lines}</ul>' if lines else ""


def why_missing(measured: Measured, names: Sequence[str]) -> dict[str, list[str]]:
    """The titles of columns that no run has, or some have not, by the reason."""
    reasons: dict[str, list[str]] = {}
    for name in names:
        for run, found in zip(measured.comparison.runs, measured.scores, strict=True):
            if isinstance(one := found.get(name), Unavailable):
                whose = "" if not _has(measured, name) else f" of {run.name}"
                titles = reasons.setdefault(one.reason, [])
                if f"{one.title}{whose}" not in titles:
                    titles.append(f"{one.title}{whose}")
    return reasons

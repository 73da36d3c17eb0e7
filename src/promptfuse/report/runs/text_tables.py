"""The numbers of a report as files for papers and notebooks: Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics import Score
from promptfuse.report.runs.measure import TERM, Measured
from promptfuse.report.runs.tables import (
    Scale,
    Standing,
    failures,
    families,
    number,
    standing,
    title_of,
    why_missing,
)

FIELDS = (
    "run", "metric", "title", "better", "photos", "value", "low", "high",
    "minus_first", "minus_first_low", "minus_first_high",
)  # fmt: skip
"""Columns of the CSV file."""

Rank = Literal["best", "tie", ""]

_LEGEND = (
    "95% bootstrap intervals over them in brackets. Bold: the best of its column; underlined: cannot be told "
    "from it, as the interval of the paired difference holds zero."
)

_MARKS: Mapping[Rank, str] = {"best": "**%s**", "tie": "<ins>%s</ins>", "": "%s"}
_TEX_MARKS: Mapping[Rank, str] = {"best": r"\textbf{%s}", "tie": r"\underline{%s}", "": "%s"}

_ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}
_TEX_ARROWS = {"higher": r"~$\uparrow$", "lower": r"~$\downarrow$", "neither": ""}
_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#",
        "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
        "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "–": "--",
    }
)  # fmt: skip


def text_tables(measured: Measured, path: Path) -> str:
    """All numbers as the text of a file whose kind its name tells.

    ``.md`` and ``.tex`` have a table for each family of metrics, a row for each run, 95% intervals in
    brackets, the best number in bold and what cannot be told from it underlined; below is what the page warns
    of, and why columns are missing. ``.csv`` has a line for each number of each run, with all digits, its
    interval and its paired difference from the first run.

    Raises:
        ConfigError: if the name ends otherwise.
    """
    return writer_for(path)(measured)


def writer_for(path: Path) -> Callable[[Measured], str]:
    """What writes a file of this name, known before there are numbers.

    Raises:
        ConfigError: if nothing does.
    """
    found = _WRITERS.get(path.suffix.lower())
    if found is None:
        raise ConfigError(f"{path}: tables are written as {', '.join(_WRITERS)}; give a name that ends so")
    return found


def _markdown(measured: Measured) -> str:
    parts = [f"{len(measured.comparison.ids):,} photos. {_LEGEND}"]
    for family, names in _shown(measured):
        lines = [["run", *_heads(measured, names, _markdown_text, _ARROWS)], ["---"] + ["---:"] * len(names)]
        for run, cells in _rows(measured, names):
            texts = [f"{_MARKS[rank] % text} {interval}".rstrip() for text, interval, rank in cells]
            lines.append([_markdown_text(run), *texts])
        parts.append(f"### {family}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append("\n".join(f"- {_markdown_text(line)}" for line in _remarks(measured)))
    return "\n\n".join(parts) + "\n"


def _latex(measured: Measured) -> str:
    parts = [f"% {len(measured.comparison.ids):,} photos. {_LEGEND}\n% Needs \\usepackage{{booktabs}}."]
    for family, names in _shown(measured):
        lines = [rf"\begin{{tabular}}{{l{'r' * len(names)}}}", r"\toprule"]
        lines += [" & ".join(["run", *_heads(measured, names, _tex_text, _TEX_ARROWS)]) + r" \\", r"\midrule"]
        for run, cells in _rows(measured, names):
            texts = [_TEX_MARKS[rank] % _tex_text(text)
                     + (rf"~{{\scriptsize {_tex_text(interval)}}}" if interval else "")
                     for text, interval, rank in cells]  # fmt: skip
            # The braces keep a bracket or an asterisk of the name from the command before.
            lines.append(" & ".join(["{}" + _tex_text(run), *texts]) + r" \\")
        parts.append("\n".join([f"% {family}", *lines, r"\bottomrule", r"\end{tabular}"]))
    parts.append("\n".join(f"% {' '.join(line.split())}" for line in _remarks(measured)))
    return "\n\n".join(parts) + "\n"


def _csv(measured: Measured) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for run, name, score in _scores(measured):
        between = measured.difference(run, 0, name) if run else None
        gap = (between.value, between.low, between.high) if between else (None, None, None)
        whose = measured.comparison.runs[run].name
        writer.writerow(
            [whose, name, score.title, score.better, score.n, score.value, score.low, score.high, *gap]
        )
    return text.getvalue()


_WRITERS: Mapping[str, Callable[[Measured], str]] = {".md": _markdown, ".tex": _latex, ".csv": _csv}


def _scores(measured: Measured) -> Iterator[tuple[int, str, Score]]:
    """Every number that there is, run by run."""
    for run in range(len(measured.scores)):
        for name in measured.names():
            if (score := measured.score(run, name)) is not None:
                yield run, name, score


def _shown(measured: Measured) -> Iterator[tuple[str, list[str]]]:
    """Families with those of their columns that some run has; the image term is shown as a similarity."""
    given = {name for _, name, _ in _scores(measured)} - {f"{TERM}image"}
    for family, names in families(measured.names()).items():
        if own := [name for name in names if name in given]:
            yield family, own


def _remarks(measured: Measured) -> Iterator[str]:
    """What the page says beside its tables: warnings, notes, failures, and why columns are missing."""
    yield from measured.warnings
    yield from (*measured.comparison.notes, *measured.notes)
    for place, run in enumerate(measured.comparison.runs):
        if failed := failures(measured, place):
            yield f"{run.name}: {failed:,} of {len(run.predictions):,} photos failed."
    for reason, titles in why_missing(measured, measured.names()).items():
        yield f"{', '.join(titles)}: {reason}"


def _rows(measured: Measured, names: Sequence[str]) -> Iterator[tuple[str, list[tuple[str, str, Rank]]]]:
    """For each run its name, and for each column the number, the interval and how it ranks."""
    columns: list[tuple[str, Standing, Scale]] = []
    for name in names:
        scores = [measured.score(run, name) for run in range(len(measured.scores))]
        columns.append((name, standing(measured, name), Scale.of(scores)))
    for run, about in enumerate(measured.comparison.runs):
        yield (
            about.name,
            [
                (
                    *_texts(measured.score(run, name), scale.digits),
                    "best" if run in place.best else "tie" if run in place.ties else "",
                )
                for name, place, scale in columns
            ],
        )


def _texts(score: Score | None, digits: int) -> tuple[str, str]:
    """A number and its interval."""
    if score is None:
        return "–", ""
    text = number(score.value, digits)
    if score.low is None or score.high is None:
        return text, ""
    return text, f"[{number(score.low, digits)}, {number(score.high, digits)}]"


def _heads(
    measured: Measured, names: Sequence[str], written: Callable[[str], str], arrows: Mapping[str, str]
) -> list[str]:
    """Titles of columns, with which way is better."""
    return [written(title_of(measured, name)) + arrows[measured.better(name)] for name in names]


def _markdown_text(text: str) -> str:
    """A cell's text, which must neither end the cell nor be taken for markup."""
    return re.sub(r"([\\`*_|<\[])", r"\\\1", " ".join(text.split()))


def _tex_text(text: str) -> str:
    return " ".join(text.split()).translate(_TEX)

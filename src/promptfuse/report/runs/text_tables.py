"""The numbers of a report as files for papers and notebooks: Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from promptfuse.errors import ConfigError
from promptfuse.report.runs.measure import Measured
from promptfuse.report.runs.tables import Cell, Rank, Table, tables, why_missing

FIELDS = (
    "run", "metric", "title", "better", "photos", "value", "low", "high",
    "minus_first", "minus_first_low", "minus_first_high",
)  # fmt: skip
"""Columns of the CSV file."""

_LEGEND = (
    "95% bootstrap intervals over them in brackets. Bold: the best of its column. Underlined: not "
    "significantly different from the best (the interval of the paired difference contains zero)."
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
    brackets, the best number in bold and those that do not differ significantly from it underlined; below are
    the page's warnings and notes, and why columns are missing. ``.csv`` has a line for each number of each
    run, with all digits, its interval and its paired difference from the first run.

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
    for table in _with_columns(measured):
        lines = [_heads(table, _markdown_text, _ARROWS), ["---"] + ["---:"] * len(table.heads)]
        for run, row in zip(measured.comparison.runs, table.rows, strict=True):
            texts = [f"{_MARKS[cell.rank] % cell.text} {_brackets(cell)}".rstrip() for cell in row]
            lines.append([_markdown_text(run.name), *texts])
        parts.append(f"### {table.family}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append("\n".join(f"- {_markdown_text(line)}" for line in _remarks(measured)))
    return "\n\n".join(parts) + "\n"


def _latex(measured: Measured) -> str:
    parts = [f"% {len(measured.comparison.ids):,} photos. {_LEGEND}\n% Needs \\usepackage{{booktabs}}."]
    for table in _with_columns(measured):
        lines = [rf"\begin{{tabular}}{{l{'r' * len(table.heads)}}}", r"\toprule"]
        lines += [" & ".join(_heads(table, _tex_text, _TEX_ARROWS)) + r" \\", r"\midrule"]
        for run, row in zip(measured.comparison.runs, table.rows, strict=True):
            texts = [_TEX_MARKS[cell.rank] % _tex_text(cell.text)
                     + (rf"~{{\scriptsize {_tex_text(_brackets(cell))}}}" if cell.interval else "")
                     for cell in row]  # fmt: skip
            # The braces keep a bracket or an asterisk of the name from the command before.
            lines.append(" & ".join(["{}" + _tex_text(run.name), *texts]) + r" \\")
        parts.append("\n".join([f"% {table.family}", *lines, r"\bottomrule", r"\end{tabular}"]))
    parts.append("\n".join(f"% {' '.join(line.split())}" for line in _remarks(measured)))
    return "\n\n".join(parts) + "\n"


def _csv(measured: Measured) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for place, run in enumerate(measured.comparison.runs):
        for name in measured.names():
            if (score := measured.score(place, name)) is not None:
                between = measured.difference(place, 0, name) if place else None
                gap = (between.value, between.low, between.high) if between else (None, None, None)
                numbers = (score.n, score.value, score.low, score.high, *gap)
                writer.writerow([run.name, name, score.title, score.better, *numbers])
    return text.getvalue()


_WRITERS: Mapping[str, Callable[[Measured], str]] = {".md": _markdown, ".tex": _latex, ".csv": _csv}


def _with_columns(measured: Measured) -> list[Table]:
    return [table for table in tables(measured) if table.heads]


def _heads(table: Table, written: Callable[[str], str], arrows: Mapping[str, str]) -> list[str]:
    """Titles of columns, with which direction is better."""
    return ["run", *(written(head.title) + arrows[head.better] for head in table.heads)]


def _brackets(cell: Cell) -> str:
    return f"[{', '.join(cell.interval)}]" if cell.interval else ""


def _remarks(measured: Measured) -> Iterator[str]:
    """What the page says beside its tables: warnings, notes, failures, and why columns are missing."""
    yield from (*measured.warnings, *measured.comparison.notes, *measured.notes)
    for run in measured.comparison.runs:
        if run.failures:
            yield f"{run.name}: {len(run.failures):,} of {len(run.predictions):,} photos failed."
    for reason, titles in why_missing(measured, measured.names()).items():
        yield f"{', '.join(titles)}: {reason}"


def _markdown_text(text: str) -> str:
    """A cell's text, which must neither end the cell nor be taken for markup."""
    return re.sub(r"([\\`*_|<\[])", r"\\\1", " ".join(text.split()))


def _tex_text(text: str) -> str:
    return " ".join(text.split()).translate(_TEX)

from __future__ import annotations

import csv
import re

import pytest

from promptfuse.report.runs import compare, load_runs, measure_runs
from promptfuse.report.runs.tables import standing
from promptfuse.report.runs.text_tables import FIELDS, text_tables


@pytest.fixture
def measured(make_run):
    runs = [make_run("good_one"), make_run("off|by*three", off=3)]
    return measure_runs(compare(load_runs([str(run) for run in runs])), resamples=200)


def cells(line: str) -> list[str]:
    """Of a row of Markdown; an escaped bar is part of a cell."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_csv_has_every_number(measured, tmp_path):
    rows = list(csv.DictReader(text_tables(measured, tmp_path / "t.csv").splitlines()))
    assert tuple(rows[0]) == FIELDS
    told = measured.to_dict()
    expected = {
        (run["name"], name): (one["value"], one["low"])
        for run in told["runs"]
        for name, one in run["metrics"].items()
        if one.get("value") is not None
    }
    found = {(row["run"], row["metric"]): row for row in rows}
    assert set(found) == set(expected)
    for key, (value, low) in expected.items():
        assert float(found[key]["value"]) == value
        assert found[key]["low"] == ("" if low is None else repr(low))
    gap = told["runs"][1]["differences"]["cider_d"]
    row = found["off|by*three", "cider_d"]
    assert [float(row[name]) for name in FIELDS[-3:]] == [gap["value"], gap["low"], gap["high"]]
    assert not found["good_one", "cider_d"]["minus_first"]


def test_markdown_has_a_row_a_run_and_the_best_in_bold(measured, tmp_path):
    text = text_tables(measured, tmp_path / "t.md")
    table = text.partition("### Agreement")[2].partition("\n\n")[2].partition("\n\n")[0].splitlines()
    heads, lines, first, second = (cells(line) for line in table)
    assert len({len(heads), len(lines), len(first), len(second)}) == 1
    at = heads.index("CIDEr-D ↑")
    score = measured.score(0, "cider_d")
    number = re.fullmatch(r"\*\*([\d.]+)\*\* \[([\d.]+), ([\d.]+)\]", first[at])
    assert number
    for shown, value in zip(number.groups(), (score.value, score.low, score.high), strict=True):
        assert float(shown) == pytest.approx(value, abs=0.5 * 10 ** -len(shown.partition(".")[2]))
    assert first[0] == r"good\_one"
    assert second[0] == r"off\|by\*three"
    assert "**" not in second[at]
    assert all("METEOR" not in line for line in text.splitlines() if line.startswith("|"))  # no run has it
    assert "- METEOR, SPICE: a Java program" in text
    assert "- The objective and its terms come from the models" in text
    assert "image loss" not in text
    assert "image similarity ↑" in text


def test_what_does_not_differ_from_the_best_is_underlined(make_run, tmp_path):
    """Two captions in twelve are others: the interval of the difference holds zero."""
    texts = {0: {"text": "a man walks"}, 1: {"text": "a red boat looks at the sky today"}}
    runs = load_runs([make_run("one"), make_run("two", lines=texts), make_run("far", off=2)])
    measured = measure_runs(compare(runs), resamples=200)
    column = measured.score(1, "words")
    assert column is not None
    place = standing(measured, "rouge_l")
    assert (place.best, place.ties) == ({0}, {1})
    markdown, latex = (text_tables(measured, tmp_path / f"t.{kind}") for kind in ("md", "tex"))
    shown = next(line for line in markdown.splitlines() if line.startswith("| two |"))
    assert "<ins>0." in shown
    assert "</ins> [" in shown
    assert r"\underline{0." in latex
    assert "Underlined: not significantly different from the best" in markdown


def test_latex_is_balanced_and_escaped(measured, tmp_path):
    text = text_tables(measured, tmp_path / "t.tex")
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\toprule") > 2
    assert r"good\_one & " in text
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)_", code)
    assert r"\textbf{" in code
    for table in text.split(r"\begin{tabular}")[1:]:
        columns = re.match(r"\{(l+r+)\}", table)
        assert columns
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 3
        assert all(len(row.split(" & ")) == len(columns[1]) for row in rows)
        assert all(row.count("{") == row.count("}") for row in rows)
        # A bracket at the beginning would be an argument of the command before.
        assert all(row.startswith("{}") for row in rows[1:])


def test_the_command_writes_them(promptfuse, make_run, tmp_path):
    code, _, err = promptfuse("report", make_run("one"), "--json", "--table", tmp_path / "t.md")
    assert code == 0, err
    assert "| one |" in (tmp_path / "t.md").read_text(encoding="utf-8")


def test_other_names_are_refused_before_the_work(promptfuse, make_run, tmp_path):
    page = tmp_path / "page.html"
    code, _, err = promptfuse("report", make_run("one"), "--out", page, "--table", tmp_path / "t.xlsx")
    assert code == 2
    assert ".md, .tex, .csv" in err
    assert not page.exists()

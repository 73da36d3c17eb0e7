from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from promptfuse import load_model
from promptfuse._utils.atomic_files import is_own
from promptfuse.evaluation.metrics import score
from promptfuse.evaluation.metrics.registry import METRICS
from promptfuse.evaluation.predictions import Prediction
from tests.refusals import refused

PHOTOS = sorted((Path(__file__).parents[3] / "examples" / "photos").glob("*.jpg"))[:6]
QUICK = ["--metrics", "bleu,cider_d", "--metrics", "words", "--tokenizer", "python"]


@pytest.fixture
def promptfuse(promptfuse):
    return lambda *arguments: promptfuse("score", *arguments)


@pytest.fixture
def files(tmp_path, system, written):
    """Predictions in COCO's result format and captions in COCO's."""
    numbers = {id_: number for number, id_ in enumerate(system)}
    (tmp_path / "system.json").write_text(
        json.dumps([{"image_id": numbers[id_], "caption": text} for id_, text in system.items()])
    )
    images = [
        {"id": numbers[id_], "file_name": photo.name} for id_, photo in zip(system, PHOTOS, strict=True)
    ]
    annotations = [
        {"id": 10 * numbers[id_] + index, "image_id": numbers[id_], "caption": text}
        for id_, texts in written.items()
        for index, text in enumerate(texts)
    ]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return tmp_path / "system.json", tmp_path / "captions.json"


def test_json_is_what_score_finds(promptfuse, files, system, written):
    code, out, err = promptfuse(*files, *QUICK, "--json")
    assert (code, err) == (0, "")
    expected = score(system, written, metrics=["bleu", "cider_d", "words"], tokenizer="python")
    assert json.loads(out) == expected.to_dict()


def test_the_table_has_the_same_numbers(promptfuse, files, system, written):
    code, out, _ = promptfuse(*files, *QUICK)
    expected = score(system, written, metrics=["bleu", "cider_d", "words"], tokenizer="python")
    assert code == 0
    assert out == expected.table() + "\n"


def test_values_of_captions_are_written(promptfuse, files, tmp_path, system):
    code, _, _ = promptfuse(*files, *QUICK, "--per-caption", tmp_path / "each.jsonl")
    assert code == 0
    rows = [json.loads(line) for line in (tmp_path / "each.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == list(system.values())
    assert set(rows[0]) == {"id", "text", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "cider_d", "words"}


@pytest.mark.parametrize(
    "text",
    [
        '{"id": 7, "text": "A dog."}\n',
        '{"id": "7", "image": "7.jpg", "text": "A dog.", "error": null, "value": 2.5}\n',
        '{"id": 7, "text": "A dog.", "stars": 4}\n',
        '{"id": "7", "text": "A dog.", "label": 1, "split": "test"}\n',
        "mine",
    ],
)
def test_values_of_captions_replace_no_other_file(promptfuse, files, tmp_path, text):
    target = tmp_path / "each.jsonl"
    target.write_text(text)
    code, _, err = promptfuse(*files, *QUICK, "--per-caption", target)
    assert (code, target.read_text()) == (2, text)
    assert "was not written by promptfuse" in err
    target.unlink()
    for _ in range(2):
        assert promptfuse(*files, *QUICK, "--per-caption", target)[0] == 0


@pytest.mark.parametrize("name", [column for columns in METRICS.values() for column in columns])
def test_values_of_every_metric_are_known_again(tmp_path, name):
    path = tmp_path / "each.jsonl"
    path.write_text(json.dumps({"id": 'a "b"', name: 1.5, "text": "A dog."}) + "\n")
    assert is_own(path)


def test_models_judge(promptfuse, files):
    code, out, _ = promptfuse(
        *files, "--metrics", "clipscore,perplexity,sentiment", "--clip", "mini-clip", "--images",
        PHOTOS[0].parent, "--lm", "mini-lm", "--classifier", "mini-tone", "--label", "positive", "--json",
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert found["metrics"]["clipscore"]["n"] == 6
    assert found["metrics"]["perplexity_word"]["value"] > 1
    assert 0 <= found["metrics"]["sentiment_accuracy"]["value"] <= 1
    assert found["models"]["judge"]["name"] == "mini-clip"


def test_a_run_brings_its_costs_photos_and_models(promptfuse, tmp_path, files):
    lines = [
        Prediction(str(number), str(photo), f"a photo of {photo.stem}", seconds=0.5, exact_evaluations=10)
        for number, photo in enumerate(PHOTOS[:5])
    ]
    lines.append(Prediction("5", "gone.jpg", error="gone.jpg: no such file"))
    run = tmp_path / "run"
    run.mkdir()
    (run / "predictions.jsonl").write_text("".join(line.to_line() for line in lines))
    fingerprint = load_model("mini-clip").fingerprint
    (run / "manifest.json").write_text(
        json.dumps({"models": {"image_text": {"name": "x", "fingerprint": fingerprint}}})
    )
    code, out, _ = promptfuse(run, files[1], "--metrics", "clipscore", "--clip", "mini-clip", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["photos"] == 5
    assert found["metrics"]["seconds"]["value"] == 0.5
    assert found["metrics"]["exact_evaluations"]["value"] == 10
    assert found["metrics"]["clipscore"]["n"] == 5
    assert found["judge_is_searched"]
    assert found["notices"][0] == ("1 of 6 photos failed and are left out, e.g. '5': gone.jpg: no such file")
    assert "1 of 6 photos have no prediction" in found["notices"][1]


def test_references_may_be_left_out(promptfuse, tmp_path):
    """What needs none is computed, and the photos are found by the captions' ids."""
    lines = [json.dumps({"id": photo.name, "text": f"a photo of {photo.stem}"}) for photo in PHOTOS]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    options = ["--metrics", "bleu,clipscore,words", "--clip", "mini-clip", "--images", PHOTOS[0].parent]
    code, out, err = promptfuse(tmp_path / "captions.jsonl", *options, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)["metrics"]
    assert found["clipscore"]["n"] == found["words"]["n"] == 6
    assert "there are no references" in found["bleu_1"]["unavailable"]
    assert "there are no references" in found["refclipscore"]["unavailable"]


def test_an_id_that_is_not_known(promptfuse, files, tmp_path):
    (tmp_path / "other.jsonl").write_text('{"id": "dog.jpg", "text": "a dog"}\n')
    outcome = promptfuse(tmp_path / "other.jsonl", files[1])
    refused(outcome, f"{files[1]} has no references for 'dog.jpg'", "like '0'", "use the captioned data set")


def test_references_for_some_photos_only(promptfuse, files, tmp_path, system, written):
    rows = json.loads(files[0].read_text())
    more = [{"image_id": 100 + number, "caption": "a dog"} for number in range(3)]
    (tmp_path / "more.json").write_text(json.dumps(rows[1:] + more))
    code, out, err = promptfuse(tmp_path / "more.json", files[1], *QUICK, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["photos"] == 5
    assert found["left_out"] == {"no_references": 3, "no_prediction": 1}
    assert found["notices"][0] == "3 of 8 photos have no references and are left out, e.g. '100'"
    del system["dog"], written["dog"]
    alone = score(system, written, metrics=["bleu", "cider_d", "words"], tokenizer="python")
    assert found["metrics"] == alone.to_dict()["metrics"]
    code, out, _ = promptfuse(tmp_path / "more.json", files[1], *QUICK)
    assert "3 of 8 photos have no references and are left out" in out


VIZWIZ = [
    (1, "A can of soup.", False, False),
    (1, "Quality issues are too severe to recognize visual content.", False, True),
    (1, "asdf", True, False),
    (2, "Quality issues are too severe to recognize visual content.", True, True),
    (2, "A grey floor.", False, False),
]


@pytest.fixture
def vizwiz(tmp_path):
    """As the annotations of VizWiz-Captions are."""
    images = [
        {
            "file_name": f"VizWiz_val_{number:08d}.jpg", "id": number, "text_detected": True,
            "vizwiz_url": f"https://vizwiz.cs.colorado.edu/VizWiz_visualization_img/VizWiz_val_{number:08d}.jpg",
        }
        for number in (1, 2)
    ]  # fmt: skip
    annotations = [
        {"caption": text, "image_id": image, "is_precanned": precanned, "is_rejected": rejected, "id": number,
         "text_detected": True}
        for number, (image, text, rejected, precanned) in enumerate(VIZWIZ)
    ]  # fmt: skip
    document = {"info": {}, "images": images, "annotations": annotations}
    (tmp_path / "val.json").write_text(json.dumps(document))
    (tmp_path / "alone.json").write_text(json.dumps({"annotations": annotations}))
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in annotations))
    names = ("image_id", "caption", "is_rejected", "is_precanned")
    (tmp_path / "table.csv").write_text("\n".join(",".join(map(str, row)) for row in (names, *VIZWIZ)))
    (tmp_path / "system.json").write_text(json.dumps({"1": "a can of soup", "2": "a floor"}))
    return tmp_path


@pytest.mark.parametrize("name", ["val.json", "alone.json", "lines.jsonl", "table.csv"])
def test_rejected_captions_are_no_references(promptfuse, vizwiz, name):
    arguments = [vizwiz / "system.json", vizwiz / name, *QUICK, "--json"]
    code, out, err = promptfuse(*arguments)
    assert (code, err) == (0, "")
    found = json.loads(out)
    kept = {"1": ["A can of soup."], "2": ["A grey floor."]}
    own = score({"1": "a can of soup", "2": "a floor"}, kept, metrics=["bleu", "cider_d", "words"],
                tokenizer="python")  # fmt: skip
    assert found["metrics"] == own.to_dict()["metrics"]
    assert found["notices"] == [
        "3 captions are marked as rejected (is_rejected 2, is_precanned 2) and left out; "
        "--keep-rejected keeps them"
    ]
    code, out, _ = promptfuse(*arguments, "--keep-rejected")
    every = {"1": [row[1] for row in VIZWIZ[:3]], "2": [row[1] for row in VIZWIZ[3:]]}
    own = score({"1": "a can of soup", "2": "a floor"}, every, metrics=["bleu", "cider_d", "words"],
                tokenizer="python")  # fmt: skip
    assert json.loads(out)["metrics"] == own.to_dict()["metrics"]
    assert (
        "3 captions are marked as rejected (is_rejected 2, is_precanned 2) and kept"
        in json.loads(out)["notices"][0]
    )


def test_columns_of_references_that_are_not_read_are_told(promptfuse, files, tmp_path, written):
    lines = [{"id": number, "captions": texts, "uebersetzung": "Ein Hund am Strand"}
             for number, texts in enumerate(written.values())]  # fmt: skip
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, _ = promptfuse(files[0], tmp_path / "r.jsonl", *QUICK)
    assert code == 0
    assert "the column 'uebersetzung' looks like text and is not read" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--metrics", "cider"], ["'cider'", "cider_d"]),
        (["--metrics", ","], ["no metric given"]),
        (["--tokenizer", "spacy"], ["spacy", "stanford, python"]),
        (["--resamples", "-1"], ["--resamples", "at least 0, got -1"]),
        (["--resamples", "many"], ["many"]),
        (["--label", "positive"], ["--classifier", "--label"]),
        (["--classifier", "mini-tone"], ["--classifier", "--label"]),
        (["--images", "photos"], ["--images photos", "--clip"]),
        (["--per-caption", "no/such/folder/x.jsonl"], ["no/such/folder/x.jsonl", "does not exist"]),
        (["--metrics", "sentiment", "--classifier", "mini-tone", "--label", "joy"], ["no label 'joy'"]),
        (["--metrics", "clipscore", "--clip", "mini-lm"], ["CLIPScore needs", "mini-lm"]),
    ],
)
def test_bad_options(promptfuse, files, options, words):
    refused(promptfuse(*files, *options), *words)


def test_files_that_are_not_there(promptfuse, files, tmp_path):
    refused(promptfuse(tmp_path / "none.json", files[1]), "none.json", "no such file")
    refused(promptfuse(files[0], tmp_path / "none.json"), "none.json")


def test_java_can_be_insisted_on(promptfuse, files, monkeypatch):
    monkeypatch.setattr("promptfuse.evaluation.metrics.java.find_java", lambda: None)
    refused(promptfuse(*files, "--metrics", "cider_d", "--tokenizer", "stanford"), "no java command found")


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_scored_is_not_replaced(promptfuse, files, which):
    before = files[which].read_bytes()
    code, _, err = promptfuse(*files, *QUICK, "--per-caption", files[which])
    assert code == 2
    assert "is one of the input files" in err
    assert files[which].read_bytes() == before


def test_names_that_are_no_text_are_shown_all_the_same(tmp_path):
    odd = b"d\xe9"
    (tmp_path / odd.decode(errors="surrogateescape")).mkdir()
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict", "PYTHONUTF8": "1"}
    for options in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "promptfuse", "datasets", "check", odd, *options],
            cwd=tmp_path, env=environment, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr
        assert b"\\udce9" in done.stderr


def test_nothing_of_what_is_asked_for(promptfuse, files):
    code, out, err = promptfuse(*files, "--metrics", "clipscore")
    assert (code, out) == (2, "")
    assert "clipscore: " in err
    assert "--clip" in err


UNREAD = "the column 'prompt' looks like text and is not read"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.jsonl", '{"id": "a.jpg", "prompt": "A dog runs"}\n', "no captions (found id, prompt)"),
        ("r.jsonl", '{"id": "a.jpg", "prompt": "A dog runs"}\n' * 2, "no captions (found id, prompt)"),
        ("r.csv", "image,prompt\na.jpg,A dog runs\n", UNREAD),
    ],
)
def test_references_without_captions_say_what_is_there(promptfuse, tmp_path, name, content, said):
    (tmp_path / "p.jsonl").write_text('{"id": "a.jpg", "text": "A dog"}\n')
    (tmp_path / name).write_text(content)
    code, _, err = promptfuse(tmp_path / "p.jsonl", tmp_path / name, "--metrics", "bleu")
    assert code == 2
    assert err.count("\n") == 1
    assert said in err


def test_fields_of_captions_by_id_that_are_not_read_are_named(promptfuse, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"id": "a.jpg", "text": "A dog"}\n')
    rows = {"a.jpg": {"caption": "A dog runs", "narrative": "A dog that runs fast"}}
    (tmp_path / "r.json").write_text(json.dumps(rows))
    code, out, _ = promptfuse(tmp_path / "p.jsonl", tmp_path / "r.json", "--metrics", "bleu")
    assert code == 0
    assert "the field 'narrative' looks like text and is not read (captions are read from 'caption')" in out

"""Captions that a data set does not count itself: VizWiz marks them."""

from __future__ import annotations

import json

import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import read_dataset

ROWS = [
    ("a.jpg", "A can of soup.", False, False),
    ("a.jpg", "Quality issues are too severe to recognize visual content.", False, True),
    ("b.jpg", "asdf", True, False),
    ("b.jpg", "Quality issues are too severe to recognize visual content.", True, True),
]
LINE = (
    "3 captions are marked as rejected (is_rejected 2, is_precanned 2) and left out; "
    "--keep-rejected keeps them"
)


def document(kind):
    names = ("image", "caption", "is_rejected", "is_precanned")
    rows = [dict(zip(names, row, strict=True)) for row in ROWS]
    if kind == "coco.json":
        images = [{"id": number, "file_name": name} for number, name in enumerate(("a.jpg", "b.jpg"))]
        numbers = {"a.jpg": 0, "b.jpg": 1}
        return {
            "images": images,
            "annotations": [{**row, "image_id": numbers[row.pop("image")]} for row in rows],
        }
    if kind == "d.csv":
        return "\n".join(",".join(map(str, row)) for row in (names, *ROWS))
    return "\n".join(map(json.dumps, rows))


@pytest.mark.parametrize("kind", ["coco.json", "d.csv", "d.jsonl"])
def test_they_are_left_out_and_counted(write, photo, tmp_path, kind):
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / name)
    path = write(kind, document(kind))
    dataset = read_dataset(path)
    assert [photo.references for photo in dataset.photos] == [("A can of soup.",), ()]
    assert dataset.problems == (LINE,)
    kept = read_dataset(path, keep_rejected=True)
    assert [photo.references for photo in kept.photos] == [
        ("A can of soup.", ROWS[1][1]), ("asdf", ROWS[3][1])
    ]  # fmt: skip
    assert kept.problems == ("3 captions are marked as rejected (is_rejected 2, is_precanned 2) and kept",)


def test_marks_within_lists(write):
    captions = [{"caption": "A dog.", "is_rejected": False}, {"caption": "asdf", "is_rejected": True}]
    for name, content in (
        ("d.json", [{"image": "a.jpg", "captions": captions}]),
        ("k.json", {"images": [{"filename": "a.jpg", "split": "val", "sentences": captions}]}),
    ):
        dataset = read_dataset(write(name, content))
        assert dataset.photos[0].references == ("A dog.",)
        assert "1 caption is marked as rejected (is_rejected 1) and left out" in dataset.problems[0]
        assert read_dataset(dataset.source, keep_rejected=True).photos[0].references == ("A dog.", "asdf")


@pytest.mark.parametrize("value", [False, None, 0, "", "0", "False", "no"])
def test_a_mark_that_is_not_set(write, value):
    path = write("d.json", [{"image": "a.jpg", "caption": "A dog.", "is_rejected": value}])
    assert read_dataset(path).photos[0].references == ("A dog.",)


@pytest.mark.parametrize("value", [True, 1, 1.0, "1", "1.0", "true", " TRUE", "t"])
def test_a_mark_that_is_set(write, value):
    path = write("d.json", [{"image": "a.jpg", "caption": "A dog.", "is_rejected": value}])
    assert read_dataset(path).photos[0].references == ()


def test_the_check_says_how_many(write, photo, tmp_path, promptfuse):
    for name in ("a.jpg", "b.jpg"):
        photo(tmp_path / name)
    path = write("coco.json", document("coco.json"))
    code, out, _ = promptfuse("datasets", "check", path)
    assert code == 0
    assert f"note: {LINE}" in out
    assert "captions          1; 0 to 1 a photo" in out
    code, out, _ = promptfuse("datasets", "check", path, "--keep-rejected", "--json")
    assert json.loads(out)["captions"]["total"] == 4


def test_data_frames_leave_marks_without_a_value(write):
    text = '{"image": "a.jpg", "caption": "A dog.", "is_rejected": NaN}\n'
    assert read_dataset(write("d.jsonl", text)).photos[0].references == ("A dog.",)


@pytest.mark.parametrize("kind", ["lists", "columns", "csv"])
def test_lists_of_marks_beside_lists_of_captions(write, kind):
    texts, marks = ["A dog.", "asdf", "A brown dog."], [False, True, False]
    if kind == "csv":
        cells = [json.dumps(texts).replace('"', '""'), str(marks)]
        path = write("d.csv", f'image,captions,is_rejected\na.jpg,"{cells[0]}","{cells[1]}"\n')
    else:
        row = {"captions": texts, "is_rejected": marks}
        if kind == "columns":
            row = {"captions": {"text": texts, "is_rejected": marks}}
        path = write("d.jsonl", json.dumps({"image": "a.jpg", **row}))
    dataset = read_dataset(path)
    assert dataset.photos[0].references == ("A dog.", "A brown dog.")
    assert "1 caption is marked as rejected (is_rejected 1) and left out" in dataset.problems[0]
    assert read_dataset(path, keep_rejected=True).photos[0].references == tuple(texts)


def test_marks_that_are_none_of_the_captions(write):
    row = {"image": "a.jpg", "captions": ["A dog.", "A cat."], "is_rejected": [True]}
    with pytest.raises(ConfigError, match="1 marks for 2 captions; give one a caption"):
        read_dataset(write("d.jsonl", json.dumps(row)))

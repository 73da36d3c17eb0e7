"""No caption is lost in silence: columns of captions are read, others that look like one are named."""

from __future__ import annotations

import csv
import io
import json

import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import read_dataset


def references(path, **settings):
    return {photo.id: photo.references for photo in read_dataset(path, **settings).photos}


COLUMNS = ["text", "sentence", "description", "caption", "raw", "comment", "alt_text", "TEXT", "Caption"]
LISTS = ["sentences", "captions", "references", "texts", "descriptions", "raw", "text"]


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("photo", ["file_name", "image", "image_path", "filepath"])
def test_a_column_of_texts_is_read(write, column, photo):
    row = {photo: "a.jpg", column: "A dog runs."}
    path = write("metadata.jsonl", json.dumps(row) + "\n")
    assert references(path) == {"a.jpg": ("A dog runs.",)}
    table = write("metadata.csv", f"{photo},{column}\na.jpg,A dog runs.\n")
    assert references(table) == {"a.jpg": ("A dog runs.",)}
    assert not any("looks like" in problem for problem in read_dataset(path).problems)


@pytest.mark.parametrize("column", LISTS)
@pytest.mark.parametrize(
    "values",
    [
        ["A dog.", "One dog"],
        [{"raw": "A dog."}, {"raw": "One dog", "tokens": ["one", "dog"]}],
        [{"caption": "A dog.", "id": 3}, {"text": "One dog"}],
        [{"tokens": ["A", "dog."]}, "One dog"],
    ],
)
def test_a_column_of_lists_is_read(write, column, values):
    path = write("metadata.jsonl", json.dumps({"file_name": "a.jpg", column: values}) + "\n")
    assert references(path) == {"a.jpg": ("A dog.", "One dog")}


def test_numbered_columns_are_read_together(write):
    path = write("d.csv", "image,caption_1,caption_2,caption_3\na.jpg,A dog,One dog,\nb.jpg,A cat,,\n")
    assert references(path) == {"a.jpg": ("A dog", "One dog"), "b.jpg": ("A cat",)}
    row = {"image": "a.jpg", "caption": "A dog", "caption1": "One dog"}
    assert references(write("d.json", [row])) == {"a.jpg": ("A dog", "One dog")}


STRANGE = [
    ("beschreibung", "Ein Hund läuft."),
    ("additional_feature", "This is a first value of a text feature"),
    ("titles", ["A dog on a beach", "Two dogs"]),
    ("prompt", "a dog, digital art"),
    ("translations", {"de": "Ein Hund läuft", "fr": "Un chien court"}),
    ("标题", "一只狗在沙滩上跑"),
    ("answers", [{"answer": "a small dog"}]),
    ("description", {"en": "A dog runs"}),
]


@pytest.mark.parametrize(("column", "value"), STRANGE)
@pytest.mark.parametrize("first", [{}, {"text": "A dog."}])
def test_a_column_that_is_not_read_is_named(write, column, value, first):
    rows = [{"file_name": "a.jpg", **first, column: None}, {"file_name": "b.jpg", **first, column: value}]
    (problem,) = problems(write("metadata.jsonl", "\n".join(map(json.dumps, rows))))
    assert problem.startswith(f"the column {column!r} looks like text and is not read")
    assert ("read from 'text'" in problem) is bool(first)


def problems(path):
    return [problem for problem in read_dataset(path).problems if "looks" in problem or "look " in problem]


def test_several_columns_are_named_in_one_line(write):
    path = write("d.csv", "image,caption,titel,untertitel\na.jpg,A dog,Ein Hund,läuft am Strand\n")
    (problem,) = problems(path)
    assert problem.startswith("the columns 'titel', 'untertitel' look like text and are not read")


def test_a_second_column_of_captions_is_named(write):
    path = write("d.json", [{"image": "a.jpg", "caption": "A dog", "text": "A wet dog runs."}])
    assert references(path) == {"a.jpg": ("A dog",)}
    assert "the column 'text' looks like text and is not read" in problems(path)[0]


@pytest.mark.parametrize("value", [True, 3, None, {"x": 1}, 0.5, float("nan")])
def test_columns_that_only_share_a_name_with_captions(write, value):
    path = write("d.json", [{"image": "a.jpg", "text": value, "sentence": "A dog."}])
    assert references(path) == {"a.jpg": ("A dog.",)}
    path = write("d.json", [{"image": "a.jpg", "text": value}])
    assert references(path) == {"a.jpg": ()}


def test_nothing_as_pandas_writes_it(write):
    path = write(
        "d.json", '[{"image": "a.jpg", "caption": NaN}, {"image": "b.jpg", "captions": ["A cat.", NaN]}]'
    )
    assert references(path) == {"a.jpg": (), "b.jpg": ("A cat.",)}


def test_words_are_named_where_there_are_no_captions(write):
    path = write(
        "d.json", [{"image": "a.jpg", "schlagwort": "Hund", "width": 640, "sha": "a1b2c3", "ok": True}]
    )
    (problem,) = problems(path)
    assert problem.startswith("the column 'schlagwort' looks like text")
    path = write("e.json", [{"image": "a.jpg", "schlagwort": "Hund", "caption": "A dog"}])
    assert problems(path) == []


NO_TEXTS = [
    "",
    "dog",
    "a.jpg",
    "my photos/beach day.jpg",
    "https://example.org/a b",
    "s3://bucket/a.jpg",
    "2013-11-14 11:18:45",
    "Mon Jul 16 19:00:00 2012",
    "1 2 3",
    "0.5 0.25",
    "sha256:0a1b",
    "x1 y2 z3",
    "photos\\beach\\a.jpeg",
]


@pytest.mark.parametrize("value", NO_TEXTS)
def test_names_numbers_and_dates_are_no_texts(write, value):
    path = write("d.json", [{"image": "a.jpg", "caption": "A dog.", "other": value}])
    assert problems(path) == []


@pytest.mark.parametrize(
    "value", ["A dog", "rice and/or beans", "Two men, 40 m up.", "犬が砂浜を走る", "un été"]
)
def test_texts(write, value):
    path = write("d.json", [{"image": "a.jpg", "caption": "A dog.", "other": value}])
    assert problems(path)[0].startswith("the column 'other' looks like text")


def test_fields_of_other_formats_are_named_too(write):
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg", "story": "A dog went out."}],
        "annotations": [{"image_id": 1, "caption": "A dog.", "text_de": "Ein nasser Hund"}],
    }
    assert problems(write("coco.json", coco))[0].startswith("the fields 'story', 'text_de' look like text")
    image = {"filename": "a.jpg", "split": "val", "sentences": [{"raw": "A dog."}], "alt": "A dog runs."}
    assert problems(write("k.json", {"images": [image]}))[0].startswith("the field 'alt' looks like text")


def test_karpathys_photos_with_other_captions(write):
    images = [
        {"filename": "a.jpg", "split": "val", "captions": ["A dog.", "One dog"]},
        {"filename": "b.jpg", "split": "val", "caption": "A cat."},
        {"filename": "c.jpg", "split": "val", "sentences": ["A cow."]},
    ]
    path = write("d.json", {"images": images})
    assert references(path) == {"a.jpg": ("A dog.", "One dog"), "b.jpg": ("A cat.",), "c.jpg": ("A cow.",)}


def test_usual_fields_of_published_files_are_not_named(write):
    image = {
        "license": 3, "file_name": "000000000042.jpg", "height": 478, "width": 640, "id": 42,
        "coco_url": "http://images.cocodataset.org/val2014/COCO_val2014_000000000042.jpg",
        "date_captured": "2013-11-18 09:53:16", "open_images_id": "0013ea2087020901", "domain": "in-domain",
        "flickr_url": "http://farm5.staticflickr.com/4087/5078192399_aaefdb5074_z.jpg",
    }  # fmt: skip
    assert problems(write("coco.json", {"images": [image]})) == []
    sentences = [{"tokens": ["a", "dog"], "raw": "A dog.", "imgid": 0, "sentid": 0}]
    karpathy = {"sentids": [0], "imgid": 0, "sentences": sentences, "split": "train", "filename": "1_a.jpg"}
    assert problems(write("k.json", {"images": [karpathy], "dataset": "flickr8k"})) == []


def test_flickr30k_as_kaggle_has_it(write):
    text = "image_name| comment_number| comment\n1.jpg| 0| Two young guys .\n1.jpg| 1| Two men , outside .\n"
    assert references(write("results.csv", text)) == {"1.jpg": ("Two young guys .", "Two men , outside .")}
    assert problems(write("results.csv", text)) == []


def test_flickr30k_as_hugging_face_has_it(write):
    cells = io.StringIO(newline="")
    writer = csv.writer(cells)
    writer.writerow(["raw", "sentids", "split", "filename", "img_id"])
    writer.writerow([json.dumps(["Two guys.", "Two men."]), "[0, 1]", "train", "1000092795.jpg", "0"])
    path = write("flickr_annotations_30k.csv", cells.getvalue())
    assert references(path) == {"1000092795.jpg": ("Two guys.", "Two men.")}
    assert problems(path) == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_flickrs_tokens(write, end):
    lines = [
        "10.jpg#0\tTwo young guys , #1 .",
        "10.jpg#1\tTwo men .",
        "2258277193_586949ec62.jpg.1#0\tPeople .",
    ]
    path = write("results_20130124.token", end.join(lines) + end)
    assert references(path) == {
        "10.jpg": ("Two young guys , #1 .", "Two men ."), "2258277193_586949ec62.jpg": ("People .",)
    }  # fmt: skip
    with pytest.raises(ConfigError, match="line 4: its format differs from the lines before"):
        read_dataset(write("bad.token", end.join([*lines, "11.jpg Two"])))


def test_conceptual_captions(write):
    lines = [
        "a very typical bus station\thttp://lh6.ggpht.com/-IvRtNLNcG8o/a.jpg",
        "sierra looked\thttp://x.org/b.jpg",
    ]
    path = write("Train_GCC-training.tsv", "\n".join(lines) + "\n")
    found = read_dataset(path)
    assert [(photo.image, photo.references) for photo in found.photos] == [
        ("http://lh6.ggpht.com/-IvRtNLNcG8o/a.jpg", ("a very typical bus station",)),
        ("http://x.org/b.jpg", ("sierra looked",)),
    ]


def test_laions_columns(write):
    text = "URL,TEXT,WIDTH,HEIGHT\nhttps://x.org/a.jpg,A dog on a beach,640,480\n"
    (photo,) = read_dataset(write("laion.csv", text)).photos
    assert (photo.image, photo.references) == ("https://x.org/a.jpg", ("A dog on a beach",))


def test_textcaps(write, photo, tmp_path):
    file = photo(tmp_path / "train_images" / "004a94533222dc25.jpg")
    strings = ["A bottle of beer.", "Beer stands on a table."]
    rows = [
        {
            "image_id": "004a94533222dc25", "image_name": "004a94533222dc25", "caption_id": number,
            "image_path": "train/004a94533222dc25", "set_name": "val", "caption_str": text,
            "caption_tokens": text.split(), "reference_strs": strings, "image_classes": ["Beer"],
            "flickr_original_url": "https://farm6.staticflickr.com/5/4_o.jpg", "image_width": 1024,
        }
        for number, text in enumerate(strings)
    ]  # fmt: skip
    document = {"dataset_type": "val", "dataset_name": "textcaps", "dataset_version": "0.1", "data": rows}
    dataset = read_dataset(write("TextCaps_0.1_val.json", document))
    (found,) = dataset.photos
    assert (found.id, found.image, found.split) == ("004a94533222dc25", str(file), "val")
    assert found.references == tuple(strings)
    assert dataset.problems == ()

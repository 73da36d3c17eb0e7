from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics.files import read_captions
from promptfuse.evaluation.metrics.references import read_references
from promptfuse.evaluation.predictions import Prediction

COCO = {
    "images": [{"id": 7, "file_name": "7.jpg"}, {"id": 8, "file_name": "8.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "A dog."},
        {"id": 2, "image_id": 8, "caption": "A cat."},
        {"id": 3, "image_id": 7, "caption": " The dog "},
    ],
}


def write(path: Path, value: object) -> Path:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return path


def lines(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


CAPTIONS = [
    [{"image_id": 7, "caption": "a dog"}, {"image_id": 8, "caption": "ein Café"}],
    [{"image_id": 7, "id": 1, "caption": "a dog"}, {"image_id": "8", "id": 2, "caption": "ein Café"}],
    lines({"id": "7", "text": "a dog"}, {"id": 8, "text": "ein Café"}),
    lines({"id": "7", "text": "a dog", "x": 1}, {"id": 8, "text": "ein Café"}).strip(),
    lines({"image": "7", "text": "a dog"}, {"image": "8", "text": "ein Café"}),
    lines({"file_name": "7", "text": "a dog"}, {"file_name": "8", "text": "ein Café"}),
    "\ufeff\n" + lines({"id": "7", "caption": "a dog"}) + "\n\n" + lines({"id": "8", "caption": "ein Café"}),
    {"7": "a dog", "8": "ein Café"},
    {"7": ["a dog"], "8": ["ein Café"]},
    {"7": ["a dog"], "8": "ein Café"},
    {"7": [{"caption": "a dog"}], "8": [{"image_id": 8, "caption": "ein Café"}]},
    {"7": {"caption": "a dog"}, "8": {"text": "ein Café"}},
    [{"image_id": 7, "caption": ["a dog"]}, {"image_id": 8, "caption": "ein Café"}],
    lines({"id": "7", "captions": ["a dog"]}, {"id": 8, "caption": ["ein Café"]}),
    lines({"image_id": 7, "prediction": "a dog"}, {"image_id": 8, "prediction": "ein Café"}),
    lines({"ID": 7, "Caption": "a dog"}, {"ID": 8, "Caption": "ein Café"}),
]


@pytest.mark.parametrize("content", CAPTIONS)
def test_formats_of_captions(tmp_path, content):
    found = read_captions(write(tmp_path / "captions.json", content))
    assert found.texts == {"7": "a dog", "8": "ein Café"}
    assert found.failed == {}


def test_one_line_of_json_lines(tmp_path):
    assert read_captions(write(tmp_path / "x", lines({"id": "7", "text": "a dog"}))).texts == {"7": "a dog"}


def run_folder(folder: Path, *, cut: bool = False) -> Path:
    rows = [
        Prediction("7", "photos/7.jpg", "a dog", seconds=1.5, exact_evaluations=32),
        Prediction("8", "photos/8.jpg", error="photos/8.jpg: is damaged"),
        Prediction("9", "photos/9.jpg", "", seconds=2.0),
    ]
    folder.mkdir()
    text = "".join(row.to_line() for row in rows)
    write(folder / "predictions.jsonl", text + ('{"id": "10", "ima' if cut else ""))
    write(folder / "manifest.json", {"models": {"lm": {"name": "a", "fingerprint": "01"},
                                                "image": {"name": "b", "fingerprint": "23"}}})  # fmt: skip
    return folder


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("file", ["", "predictions.jsonl"])
def test_a_run(tmp_path, cut, file):
    found = read_captions(run_folder(tmp_path / "run", cut=cut) / file)
    assert found.texts == {"7": "a dog", "9": ""}
    assert found.images == {"7": "photos/7.jpg", "9": "photos/9.jpg"}
    assert found.costs == {"seconds": {"7": 1.5, "9": 2.0}, "exact_evaluations": {"7": 32.0, "9": 0.0}}
    assert found.failed == {"8": "photos/8.jpg: is damaged"}
    assert found.searched == ("01", "23")


def test_a_run_without_its_manifest(tmp_path):
    folder = run_folder(tmp_path / "run")
    (folder / "manifest.json").unlink()
    assert read_captions(folder).searched == ()


BAD = [
    ([], "has no captions"),
    ("", "is empty"),
    ("{", "not valid JSON"),
    ("hello", "not valid JSON"),
    (
        [{"image_id": 7, "caption": "a"}, {"image_id": "7", "caption": "b"}],
        "entry 2: '7' occurs twice",
    ),
    ([{"caption": "a"}], "entry 1: the field 'image_id' is missing"),
    ([{"image_id": 7}], "entry 1: no caption"),
    ([{"image_id": 7, "caption": 5}], "entry 1: expected a caption in quotes"),
    ([{"image_id": 7, "caption": ["a", "b"]}], "entry 1: 2 captions; give one for each photo"),
    ([{"image_id": 7, "caption": []}], "entry 1: no captions; give one for each photo"),
    ({"7": ["a", "b", "c"]}, "'7': 3 captions; give one for each photo"),
    ({"7": [5]}, "'7': expected a caption in quotes"),
    ({"7": {"x": "a"}}, "'7': no caption (found x)"),
    ([{"image_id": {}, "caption": "a"}], "entry 1, image_id: expected a text or a whole number"),
    ([7], "entry 1: expected fields"),
    ("7", "expected a list"),
    (lines({"id": 1, "text": "a"}, [2]), "line 2: expected fields"),
    (lines({"id": 1, "text": "a"}) + "oops\n", "line 2: not valid JSON"),
    (lines({"id": 1, "text": None, "error": "it is dark"}), "all 1 photos failed, the first: it is dark"),
    ("[" * 100_000, "not valid JSON"),
    ('{"1": "a dog", "2": "x", "1": "the dog is here"}', "'1' occurs twice"),
    (lines({"id": 1, "text": None}, {"id": 1, "text": None}), "line 2: '1' occurs twice"),
    (lines({"id": 1, "text": "a"}, {"id": 1, "text": None}), "line 2: '1' occurs twice"),
    ('{"\\ud800": "a dog", "b": "c"}', "is not valid Unicode"),
    (COCO, "a data set, not the captions"),
]


@pytest.mark.parametrize(("content", "said"), BAD)
def test_bad_captions(tmp_path, content, said):
    file = write(tmp_path / "captions.json", content)
    with pytest.raises(ConfigError) as error:
        read_captions(file)
    assert str(error.value).startswith(str(file))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_captions_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_captions(tmp_path / "nothing.json")
    with pytest.raises(ConfigError, match=r"no predictions\.jsonl in this folder"):
        read_captions(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_captions(tmp_path / "bytes")


REFERENCES = [
    lines({"id": "7", "references": ["A dog.", " The dog "]}, {"id": 8, "references": ["A cat.", ""]}),
    lines({"image_id": 7, "captions": ["A dog.", "The dog"]}, {"image_id": 8, "captions": "A cat."}),
    [{"id": "7", "references": ["A dog.", "The dog"]}, {"id": 8, "references": ["A cat."]}],
    {"7": ["A dog.", "The dog"], "8": ["A cat."]},
    {"7": ["A dog.", "The dog"], "8": "A cat."},
    {"7": [{"caption": "A dog."}, {"caption": "The dog"}], "8": [{"image_id": 8, "caption": "A cat."}]},
    {"7": {"references": ["A dog.", "The dog"]}, "8": {"caption": "A cat."}},
    lines({"id": 7, "sentences": [{"raw": "A dog."}, "The dog"]}, {"id": 8, "text": "A cat."}),
    {"annotations": COCO["annotations"]},
    {"annotations": COCO["annotations"], "images": [{"id": 7}, {"id": 8}]},
    {"annotations": COCO["annotations"], "images": []},
    COCO["annotations"],
    lines(*COCO["annotations"]),
    lines({"id": "7", "references": "A dog."}, {"id": 8, "references": "A cat."},
          {"id": 7, "references": "The dog"}),
    COCO,
    lines({"id": "7", "image": "7.jpg", "captions": ["A dog.", "The dog"]},
          {"id": "8", "image": "8.jpg", "captions": ["A cat."]}),
]  # fmt: skip


@pytest.mark.parametrize("content", REFERENCES)
def test_formats_of_references(tmp_path, content):
    name = "references.jsonl" if isinstance(content, str) else "references.json"
    found = read_references(str(write(tmp_path / name, content)))
    assert found.texts == {"7": ["A dog.", "The dog"], "8": ["A cat."]}


@pytest.mark.parametrize("content", REFERENCES)
def test_photos_of_a_folder(tmp_path, content):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("7.jpg", "8.jpg", "9.jpg"):
        (photos / name).touch()
    name = "references.jsonl" if isinstance(content, str) else "references.json"
    found = read_references(str(write(tmp_path / name, content)), str(photos))
    assert {id_: Path(image) for id_, image in found.images.items()} == {
        "7": photos / "7.jpg",
        "8": photos / "8.jpg",
    }


def test_a_table_and_a_folder_are_references_too(tmp_path):
    table = write(tmp_path / "table.csv", "image,caption\n7.jpg,A dog.\n7.jpg,The dog\n")
    assert read_references(str(table)).texts == {"7.jpg": ["A dog.", "The dog"]}


def test_bad_references(tmp_path):
    twice = lines({"id": 1, "references": ["a"]}, {"id": "1", "references": ["b"]})
    with pytest.raises(ConfigError, match="line 2: '1' occurs twice"):
        read_references(str(write(tmp_path / "twice.jsonl", twice)))
    wrong = lines({"id": 1, "references": 5})
    with pytest.raises(ConfigError, match="line 1, references: expected a caption"):
        read_references(str(write(tmp_path / "wrong.jsonl", wrong)))
    good = str(write(tmp_path / "good.jsonl", lines({"id": 1, "references": ["a"]})))
    with pytest.raises(ConfigError, match="no such folder"):
        read_references(good, str(tmp_path / "nowhere"))
    (tmp_path / "photos").mkdir()
    with pytest.raises(ConfigError, match="no photo is named like an id, such as '1'"):
        read_references(good, str(tmp_path / "photos"))
    with pytest.raises(ConfigError):
        read_references(str(tmp_path / "nothing.json"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
@pytest.mark.parametrize("ends", ["\n\n", "\r\n\r\n", "\r\r", "\r\n", "\r\n\r", "\n\r"])
def test_lines_of_any_encoding_and_ends(tmp_path, encoding, ends):
    """Ends of the three kinds, also mixed: one behind each line, the last of them twice."""
    first, last = ("\r\n", ends[2:]) if ends.startswith("\r\n") and len(ends) > 2 else (ends[0], ends[1:])

    def save(name, *rows):
        text = "".join(json.dumps(row, ensure_ascii=False) + first for row in rows[:-1])
        (tmp_path / name).write_bytes(
            (text + json.dumps(rows[-1], ensure_ascii=False) + last * 2).encode(encoding)
        )
        return tmp_path / name

    texts = {"7": "ein\u2028Café", "8": "a dog", "9": "a cat"}
    captions = save("captions.txt", *({"id": id_, "text": text} for id_, text in texts.items()))
    assert read_captions(captions).texts == texts
    references = save("references.txt", *({"id": id_, "references": [text]} for id_, text in texts.items()))
    assert read_references(str(references)).texts == {id_: [text] for id_, text in texts.items()}
    data = save("data.txt", *({"image": f"{id_}.jpg", "caption": text} for id_, text in texts.items()))
    assert read_references(str(data)).texts == {f"{id_}.jpg": [text] for id_, text in texts.items()}
    run = save(
        "run.jsonl",
        *(json.loads(Prediction(id_, f"{id_}.jpg", text).to_line()) for id_, text in texts.items()),
    )
    assert read_captions(run).images == {id_: f"{id_}.jpg" for id_ in texts}
    assert read_captions(run).texts == texts


def test_a_run_that_was_cut_within_a_letter(tmp_path):
    line = Prediction("7", "7.jpg", "ein Café").to_line().encode()
    (tmp_path / "predictions.jsonl").write_bytes(line + line[: line.index("é".encode()) + 1])
    assert (
        read_captions(tmp_path).texts
        == read_captions(tmp_path / "predictions.jsonl").texts
        == {"7": "ein Café"}
    )


@pytest.mark.parametrize("name", ["d.csv", "d.tsv"])
@pytest.mark.parametrize("column", ["id", "image_id", "image", "file_name"])
def test_captions_and_references_as_csv(tmp_path, name, column):
    mark = "\t" if name.endswith("tsv") else ","
    rows = [(column, "caption"), ("7.jpg", "a dog"), ("8.jpg", "ein Café")]
    file = write(tmp_path / name, "\r\n".join(mark.join(row) for row in rows))
    assert read_captions(file).texts == {"7.jpg": "a dog", "8.jpg": "ein Café"}
    assert read_references(str(file)).texts == {"7.jpg": ["a dog"], "8.jpg": ["ein Café"]}


def test_files_behind_addresses(tmp_path):
    write(tmp_path / "captions.json", {"7": "a dog"})
    write(tmp_path / "references.jsonl", lines({"id": 7, "references": ["A dog."]}))
    folder = run_folder(tmp_path / "run")
    at = f"file://{tmp_path.as_posix()}"
    assert read_captions(f"{at}/captions.json").texts == {"7": "a dog"}
    assert read_references(f"{at}/references.jsonl").texts == {"7": ["A dog."]}
    for source in ("run", "run/predictions.jsonl"):
        assert read_captions(f"{at}/{source}") == read_captions(folder)
    with pytest.raises(ConfigError) as error:
        read_captions(f"{at}/nowhere")
    assert str(error.value).startswith(f"{at}/nowhere")


def test_a_photo_that_was_tried_again(tmp_path):
    content = lines({"id": 1, "text": None, "error": "dark"}, {"id": 1, "text": "a dog"})
    found = read_captions(write(tmp_path / "captions.jsonl", content))
    assert (found.texts, found.failed) == ({"1": "a dog"}, {})


def test_a_pipe_is_read_once(tmp_path):
    """Twice would wait for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("image,caption\n7.jpg,A dog.\n"))
    writer.start()
    assert read_references(str(pipe)).texts == {"7.jpg": ["A dog."]}
    writer.join()


def test_photos_of_cocos_names_and_nothing_beside_them(tmp_path):
    for name in ("COCO_val2014_000000000007.jpg", "8.png", "8.txt", "7.json"):
        (tmp_path / name).touch()
    references = str(write(tmp_path / "references.jsonl", REFERENCES[0]))
    images = read_references(references, str(tmp_path)).images
    assert {id_: Path(image).name for id_, image in images.items()} == {
        "7": "COCO_val2014_000000000007.jpg",
        "8": "8.png",
    }


@pytest.fixture
def found(tmp_path):
    """The photos that are found for ids in a folder of empty files, relative to it."""

    def find(ids, names):
        folder = tmp_path / "photos"
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        references = write(tmp_path / "r.jsonl", lines(*({"id": one, "references": ["a"]} for one in ids)))
        images = read_references(str(references), str(folder)).images
        return {id_: Path(image).relative_to(folder).as_posix() for id_, image in images.items()}

    return find


MATCHES = [
    ("70", "70.jpg"),
    ("70", "000000000070.jpg"),
    ("70", "COCO_val2014_000000000070.jpg"),
    ("70", "VizWiz_val_00000070.jpg"),
    ("70", "IMG_0070.JPG"),
    ("000000000070", "COCO_val2014_000000000070.jpg"),
    ("000000000070", "70.png"),
    ("0", "VizWiz_val_00000000.jpg"),
    ("COCO_val2014_000000000070", "COCO_val2014_000000000070.jpg"),
    ("val2014/COCO_val2014_000000000070.jpg", "val2014/COCO_val2014_000000000070.jpg"),
    ("val2014/COCO_val2014_000000000070.jpg", "COCO_val2014_000000000070.jpg"),
    ("70", "val2014/COCO_val2014_000000000070.jpg"),
    ("1001773457_577c3a7d70", "1001773457_577c3a7d70.jpg"),
    ("Beach.JPG", "beach.jpg"),
    ("cafe\u0301", "caf\u00e9.jpg"),
]


@pytest.mark.parametrize(("id_", "name"), MATCHES)
def test_the_photo_of_an_id(found, id_, name):
    assert found([id_], [name, "other.jpg", "1001773457_1.png"]) == {id_: name}


STRANGERS = [
    ("70", "1001773457_577c3a7d70.jpg"),
    ("70", "1001773457_70.jpg"),
    ("70", "170.jpg"),
    ("70", "COCO_val2014_000000000170.jpg"),
    ("70", "2024-05-70.jpg"),
    ("70", "photo70.jpg"),
    ("70", "70_a.jpg"),
    ("70", "700.jpg"),
    ("70", "7_0.jpg"),
    ("7", "COCO_val2014_000000000070.jpg"),
    ("dog", "hotdog.jpg"),
    ("dog", "my_dog.jpg"),
    ("dog.jpg", "dog.jpg.txt"),
    ("dog", ".dog.jpg"),
    ("a/dog.jpg", "a/cat.jpg"),
    ("train/dog.jpg", "val/dog.jpg"),
]


@pytest.mark.parametrize(("id_", "name"), STRANGERS)
def test_part_of_a_name_is_no_match(found, id_, name):
    assert found([id_, "other"], [name, "other.jpg"]) == {"other": "other.jpg"}


@pytest.mark.parametrize(
    ("id_", "names"),
    [
        ("70", ["70.jpg", "70.png"]),
        ("70", ["a_70.jpg", "b_070.jpg"]),
        ("70", ["70.jpg", "COCO_val2014_000000000070.jpg"]),
        ("70", ["train/70.jpg", "val/70.jpg"]),
        ("dog.jpg", ["train/dog.jpg", "val/dog.jpg"]),
        ("dog", ["Dog.jpg", "DOG.jpg"]),
    ],
)
def test_two_photos_that_match_are_refused(found, id_, names):
    with pytest.raises(ConfigError) as error:
        found([id_, "other"], [*names, "other.jpg"])
    assert f"2 photos match the id {id_!r}: " in str(error.value)
    assert all(name in str(error.value) for name in names)
    assert "\n" not in str(error.value)


def test_what_is_written_goes_before_what_resembles_it(found):
    names = ["dog.jpg", "Dog.jpg", "thumbs/dog.jpg", "a/Cat.jpg", "a/cat.jpg"]
    assert found(["dog", "Dog", "a/cat", "cat"], names) == {
        "dog": "dog.jpg", "Dog": "Dog.jpg", "a/cat": "a/cat.jpg", "cat": "a/cat.jpg"
    }  # fmt: skip


def test_a_link_to_the_same_photo_is_no_second_one(found, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0070.jpg").symlink_to(tmp_path / "photos" / "70.jpg")
    assert found(["70"], ["70.jpg"]) in ({"70": "70.jpg"}, {"70": "0070.jpg"})


def test_ids_without_a_photo_are_told(tmp_path):
    for name in ("70.jpg", "1001773457_577c3a7d71.jpg"):
        (tmp_path / name).touch()
    references = write(tmp_path / "r.jsonl", lines(*({"id": one, "references": ["a"]} for one in (70, 71))))
    found = read_references(str(references), str(tmp_path))
    assert list(found.images) == ["70"]
    assert found.photo_notices == (f"1 of 2 photos are not in {tmp_path}, e.g. '71'",)


def test_photos_behind_an_address(tmp_path):
    (tmp_path / "COCO_val2014_000000000070.jpg").touch()
    references = write(tmp_path / "r.jsonl", lines({"id": 70, "references": ["a"]}))
    at = f"file://{tmp_path.as_posix()}"
    assert read_references(str(references), at).images == {"70": f"{at}/COCO_val2014_000000000070.jpg"}

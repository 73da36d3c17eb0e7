"""Folders with captions in a table, as Hugging Face's imagefolder has them."""

from __future__ import annotations

import json

import fsspec
import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import read_dataset

ROWS = [{"file_name": "0001.png", "text": "A dog."}, {"file_name": "0002.png", "text": "A cat."}]


def parquet(rows):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def metadata(kind, rows):
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows)
    if kind == "csv":
        return "file_name,text\n" + "".join(f"{row['file_name']},{row['text']}\n" for row in rows)
    return parquet(rows)


def found(dataset):
    return [(photo.id, photo.references, photo.split) for photo in dataset.photos]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("whole", [True, False])
def test_the_captions_of_a_folder(write, photo, tmp_path, kind, whole):
    for row in ROWS:
        photo(tmp_path / row["file_name"])
    path = write(f"metadata.{kind}", metadata(kind, ROWS))
    dataset = read_dataset(tmp_path if whole else path)
    assert found(dataset) == [("0001.png", ("A dog.",), ""), ("0002.png", ("A cat.",), "")]
    assert [photo.image for photo in dataset.photos] == [str(tmp_path / row["file_name"]) for row in ROWS]
    assert dataset.problems == ()
    assert dataset.format == ("folder" if whole else "table")


def test_a_folder_for_each_split(write, photo, tmp_path):
    for split in ("train", "test"):
        photo(tmp_path / split / "0001.png")
        write(f"{split}/metadata.jsonl", json.dumps({"file_name": "0001.png", "text": f"A dog of {split}."}))
    dataset = read_dataset(tmp_path)
    assert found(dataset) == [
        ("test/0001.png", ("A dog of test.",), "test"), ("train/0001.png", ("A dog of train.",), "train")
    ]  # fmt: skip
    assert found(read_dataset(tmp_path, split="test")) == found(dataset)[:1]


def test_a_table_above_the_folders_of_photos(write, photo, tmp_path):
    photo(tmp_path / "validation" / "a.png")
    photo(tmp_path / "validation" / "b.png")
    photo(tmp_path / "c.png")
    rows = [
        {"file_name": "validation/a.png", "text": "A dog.", "id": 7},
        {"file_name": "d.png", "text": "A cow."},
    ]
    write("metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    dataset = read_dataset(tmp_path)
    assert found(dataset) == [
        ("c.png", (), ""), ("d.png", ("A cow.",), ""), ("7", ("A dog.",), "validation"),
        ("validation/b.png", (), "validation"),
    ]  # fmt: skip
    unnamed, missing = dataset.problems
    assert unnamed == "2 photos are not in metadata.jsonl, e.g. c.png: no captions"
    assert "1 of 4 photos are missing" in missing


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_what_is_not_read_of_it_is_named(write, photo, tmp_path, promptfuse, kind):
    photo(tmp_path / "a.png")
    row = {"file_name": "a.png", "additional_feature": "This is a first value"}
    text = (
        json.dumps(row) if kind == "jsonl" else "file_name,additional_feature\na.png,This is a first value\n"
    )
    write(f"metadata.{kind}", text)
    code, out, _ = promptfuse("datasets", "check", tmp_path)
    assert code == 0
    assert f"note: metadata.{kind}: the column 'additional_feature' looks like text and is not read" in out


def test_other_files_with_captions_are_named(write, photo, tmp_path):
    for name in ("a.png", "b.png"):
        photo(tmp_path / name)
    write("a.txt", "A dog.")
    write("captions.csv", "image,caption\na.png,A dog.\n")
    write("notes.txt", "Remember the milk.")
    table, beside = read_dataset(tmp_path).problems
    assert table == "captions.csv is not read; name the file itself to read its captions"
    assert beside.startswith("1 text beside the photos, e.g. a.txt, is not read")


def test_json_beside_each_photo_is_named(write, photo, tmp_path):
    photo(tmp_path / "a.png")
    write("a.json", {"caption": "A dog."})
    (beside,) = read_dataset(tmp_path).problems
    assert beside.startswith("1 text beside the photos, e.g. a.json, is not read")


def test_a_table_of_something_else(write, photo, tmp_path):
    photo(tmp_path / "a.png")
    write("metadata.csv", "camera,place\nX100,On the beach\n")
    dataset = read_dataset(tmp_path)
    assert found(dataset) == [("a.png", (), "")]
    assert dataset.problems == ("metadata.csv is not read: no column names the photos (file_name)",)


def test_a_damaged_table_is_refused(write, photo, tmp_path):
    photo(tmp_path / "a.png")
    write("metadata.jsonl", '{"file_name": "a.png", "text": "A dog."}\n{"file_name": ')
    with pytest.raises(ConfigError, match=r"metadata\.jsonl: line 2: not valid JSON"):
        read_dataset(tmp_path)


def test_a_folder_behind_an_address(photo, tmp_path):
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pipe_file("/set/train/a.png", photo(tmp_path / "a.png").read_bytes())
    system.pipe_file("/set/train/metadata.jsonl", b'{"file_name": "a.png", "text": "A dog."}')
    assert found(read_dataset("memory://set")) == [("train/a.png", ("A dog.",), "train")]
    system.store.clear()


def test_photos_within_a_table(write):
    path = write("train.parquet", parquet([{"image": {"bytes": b"x", "path": "a.png"}, "caption": "A dog."}]))
    with pytest.raises(
        ConfigError, match="the column 'image' contains the photos themselves; save them as files"
    ):
        read_dataset(path)
    path = write("torn.parquet", b"PAR1xxxx")
    with pytest.raises(ConfigError, match="not a Parquet table that can be read"):
        read_dataset(path)

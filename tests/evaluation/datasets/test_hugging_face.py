"""Data sets of Hugging Face's package, saved to folders or to Parquet; no hub is asked."""

from __future__ import annotations

import sys

import pytest
from PIL import Image

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import open_photo, read_dataset, register

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def _caches(monkeypatch, tmp_path):
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def make(colours, captions, image="image", **columns):
    photos = [Image.new("RGB", (16, 12), colour) for colour in colours]
    features = {image: datasets.Image(), "captions": datasets.List(datasets.Value("string"))}
    features |= {name: datasets.Value("string") for name in columns}
    table = {image: photos, "captions": captions, **columns}
    return datasets.Dataset.from_dict(table, features=datasets.Features(features))


@pytest.fixture
def both():
    return datasets.DatasetDict(
        train=make(["red", "blue"], [["A dog.", "One dog"], ["A cat."]]), test=make(["lime"], [["A cow."]])
    )


def found(dataset):
    return [(photo.id, photo.references, photo.split) for photo in dataset.photos]


EXPECTED = [
    ("train/000000", ("A dog.", "One dog"), "train"),
    ("train/000001", ("A cat.",), "train"),
    ("test/000000", ("A cow.",), "test"),
]


def colour(photo):
    return open_photo(photo.image).getpixel((3, 3))


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_saved_folder_of_splits(both, tmp_path, prefix):
    both.save_to_disk(tmp_path / "pets")
    dataset = read_dataset(f"{prefix}{tmp_path / 'pets'}")
    assert found(dataset) == EXPECTED
    assert (dataset.name, dataset.format, dataset.problems) == ("pets", "datasets", ())
    assert [colour(photo) for photo in dataset.photos] == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]
    assert found(read_dataset(dataset.source, split="test")) == EXPECTED[2:]
    assert found(read_dataset(f"hf:{tmp_path / 'pets'}:test")) == EXPECTED[2:]
    with pytest.raises(ConfigError, match=r"no photos in the split 'tset'; did you mean 'test'"):
        read_dataset(dataset.source, split="tset")
    with pytest.raises(ConfigError, match=r"no split 'tset'; did you mean 'test'"):
        read_dataset(f"hf:{tmp_path / 'pets'}:tset")


def test_only_the_photos_that_are_taken_are_written(both, tmp_path):
    both.save_to_disk(tmp_path / "pets")
    dataset = read_dataset(tmp_path / "pets", start=1, limit=1)
    assert found(dataset) == EXPECTED[1:2]
    assert [str(path) for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [
        dataset.photos[0].image
    ]


def test_parquet_files_as_the_hub_has_them(both, tmp_path, promptfuse):
    (tmp_path / "clone" / "data").mkdir(parents=True)
    for split in both:
        both[split].to_parquet(tmp_path / "clone" / "data" / f"{split}-00000-of-00001.parquet")
    assert found(read_dataset(f"hf:{tmp_path / 'clone'}")) == EXPECTED
    file = tmp_path / "clone" / "data" / "train-00000-of-00001.parquet"
    assert found(read_dataset(f"hf:{file}")) == EXPECTED[:2]
    code, out, _ = promptfuse("datasets", "check", f"hf:{tmp_path / 'clone'}", "--split", "train")
    assert code == 0
    assert "datasets, 2 photos in the split train" in out
    register("pets", f"hf:{tmp_path / 'clone'}:test")
    assert found(read_dataset("pets")) == EXPECTED[2:]


def test_columns_are_found_as_in_tables(tmp_path):
    make(
        ["red", "blue"], [["A dog."], ["A cat."]], "img", id=["7", "8"], title=["Rex at home", "Tom"]
    ).save_to_disk(tmp_path / "pets")
    dataset = read_dataset(tmp_path / "pets")
    assert found(dataset) == [("7", ("A dog.",), "train"), ("8", ("A cat.",), "train")]
    assert dataset.problems == (
        "the column 'title' looks like text and is not read (captions are read from 'captions'); "
        "call it 'caption' if it has captions",
    )


@pytest.mark.parametrize("same", [True, False])
def test_rows_with_one_file_name(tmp_path, photo, same):
    files = [photo(tmp_path / "a" / "1.png"), photo(tmp_path / "b" / "1.png", "red" if same else "blue")]
    rows = {
        "image": [{"path": "1.png", "bytes": file.read_bytes()} for file in files],
        "caption": ["A dog.", "One dog"],
    }
    features = datasets.Features(image=datasets.Image(), caption=datasets.Value("string"))
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "pets")
    dataset = read_dataset(tmp_path / "pets")
    if same:
        assert found(dataset) == [("train/1.png", ("A dog.", "One dog"), "train")]
    else:
        assert [photo.id for photo in dataset.photos] == ["train/1.png", "train/000001-1.png"]
        assert [colour(photo) for photo in dataset.photos] == [(255, 0, 0), (0, 0, 255)]


def test_photos_beside_the_tables(tmp_path, photo):
    photo(tmp_path / "pets" / "1.png")
    table = datasets.Dataset.from_dict({"file_name": ["1.png", "2.png"], "caption": ["A dog.", "A cat."]})
    table.save_to_disk(tmp_path / "pets")
    dataset = read_dataset(tmp_path / "pets")
    assert dataset.photos[0].image == str(tmp_path / "pets" / "1.png")
    assert "1 of 2 photos are missing" in dataset.problems[0]


def test_what_cannot_be_read_is_told_in_one_line(tmp_path, monkeypatch):
    for source in ("hf:nobody/nothing", f"hf:{tmp_path}"):
        with pytest.raises(ConfigError, match=r"the package datasets cannot read it \(.*\); check") as error:
            read_dataset(source)
        assert str(error.value).startswith(f"{source}: ")
        assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ConfigError, match=r"hf:a/b: needs the package datasets; pip install 'promptfuse\[datasets\]'"
    ):
        read_dataset("hf:a/b")

from __future__ import annotations

from typing import Any

import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import Photo, read_dataset


def image(number: int, split: str, *captions: str, coco: bool = True) -> dict[str, Any]:
    """As the published files have it, with captions cut into words too."""
    sentences = [
        {"tokens": text.split(), "raw": text, "imgid": number, "sentid": 5 * number + index}
        for index, text in enumerate(captions)
    ]
    name = f"COCO_val2014_{number:012d}.jpg" if coco else f"{number}_abc.jpg"
    fields = {"filename": name, "imgid": number, "split": split, "sentences": sentences}
    return fields | ({"filepath": "val2014", "cocoid": 1000 + number} if coco else {})


def test_coco_has_ids_of_coco_and_photos_in_folders(write, photo, tmp_path):
    photo(tmp_path / "val2014" / "COCO_val2014_000000000000.jpg")
    photo(tmp_path / "val2014" / "COCO_val2014_000000000001.jpg")
    path = write(
        "dataset_coco.json",
        {"images": [image(0, "test", "A cat.", "One cat"), image(1, "val", "A dog.")], "dataset": "coco"},
    )
    dataset = read_dataset(path)
    folder = tmp_path / "val2014"
    assert dataset.photos == (
        Photo("1000", str(folder / "COCO_val2014_000000000000.jpg"), ("A cat.", "One cat"), "test"),
        Photo("1001", str(folder / "COCO_val2014_000000000001.jpg"), ("A dog.",), "val"),
    )
    assert (dataset.name, dataset.source, dataset.format) == ("dataset_coco", str(path), "karpathy")
    assert dataset.problems == ()


def test_flickr_has_names_of_files_as_ids(write, photo, tmp_path):
    photo(tmp_path / "Images" / "7_abc.jpg")
    path = write("dataset_flickr8k.json", {"images": [image(7, "train", "Two dogs", coco=False)]})
    (found,) = read_dataset(path).photos
    assert found == Photo("7_abc.jpg", str(tmp_path / "Images" / "7_abc.jpg"), ("Two dogs",), "train")


def test_train_includes_restval_and_nothing_else_does(write):
    images = [image(n, split, "x") for n, split in enumerate(["train", "restval", "val", "test", "restval"])]
    path = write("d.json", {"images": images})

    def ids(split: str | None) -> list[str]:
        return [photo.id for photo in read_dataset(path, split=split).photos]

    assert ids("train") == ["1000", "1001", "1004"]
    assert ids("restval") == ["1001", "1004"]
    assert ids("val") == ["1002"]
    assert len(ids(None)) == 5
    assert read_dataset(path, split="train").photos[1].split == "restval"


@pytest.mark.parametrize("given", ["", "val2014"])
def test_photos_lie_in_the_folder_of_all_or_of_the_split(write, photo, tmp_path, given):
    file = photo(tmp_path / "elsewhere" / "val2014" / "COCO_val2014_000000000003.jpg")
    path = write("d.json", {"images": [image(3, "val", "x")]})
    dataset = read_dataset(path, images=tmp_path / "elsewhere" / given)
    assert dataset.photos[0].image == str(file)
    assert dataset.problems == ()


def test_a_photo_that_is_missing_is_where_the_others_are(write, photo, tmp_path):
    for number in (0, 2):
        photo(tmp_path / "photos" / f"COCO_val2014_{number:012d}.jpg")
    path = write("d.json", {"images": [image(n, "val", "x") for n in range(3)]})
    dataset = read_dataset(path)
    lost = tmp_path / "photos" / "COCO_val2014_000000000001.jpg"
    assert dataset.photos[1].image == str(lost)
    (problem,) = dataset.problems
    assert "1 of 3 photos are missing" in problem
    assert str(lost) in problem


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ({"filename": "a.jpg"}, "images: expected a list"),
        ([image(0, "val", "x"), 5], "images[1]: expected fields"),
        ([image(0, "val", "x"), {"sentences": []}], "images[1]: the field 'filename' is missing"),
        ([{"filename": "a.jpg", "sentences": [5]}], "images[0].sentences[0]: expected a caption"),
        ([{"filename": "a.jpg", "sentences": [{"sent": "A cat"}]}], "images[0].sentences[0]: no caption in"),
        ([{"filename": "a.jpg", "sentences": [{"raw": 5}]}], "sentences[0].raw: expected a caption"),
        ([{"filename": ["a.jpg"], "sentences": []}], "images[0].filename: expected a text"),
        ([image(0, "val"), image(0, "val")], "'1000' occurs twice (images[0], images[1])"),
        ([], "has no photos"),
    ],
)
def test_wrong_fields_are_named(write, images, said):
    path = write("d.json", {"images": images})
    with pytest.raises(ConfigError) as error:
        read_dataset(path, format="karpathy")
    assert said in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_words_are_a_caption_where_there_is_no_other(write):
    sentences = [{"tokens": ["a", "cat"]}, {"tokens": ["x"], "raw": "A cat sits ."}]
    path = write("d.json", {"images": [{"filename": "a.jpg", "sentences": sentences}]})
    assert read_dataset(path).photos[0].references == ("a cat", "A cat sits .")

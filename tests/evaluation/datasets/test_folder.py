from __future__ import annotations

import os

import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import Photo, read_dataset


def ids(path: object) -> list[str]:
    return [photo.id for photo in read_dataset(path).photos]


def test_photos_of_all_subfolders_sorted(photo, tmp_path):
    for name in ("b.png", "a/z.jpg", "a/Ä ö.JPEG", "C.webp"):
        photo(tmp_path / "pictures" / name)
    (tmp_path / "pictures" / "notes.txt").write_text("x")
    (tmp_path / "pictures" / "model.pdf").write_text("x")
    dataset = read_dataset(tmp_path / "pictures")
    assert [found.id for found in dataset.photos] == ["C.webp", "a/z.jpg", "a/Ä ö.JPEG", "b.png"]
    assert dataset.photos[1] == Photo("a/z.jpg", str(tmp_path / "pictures" / "a" / "z.jpg"))
    assert (dataset.name, dataset.format) == ("pictures", "folder")


def test_hidden_files_are_passed_over(photo, tmp_path):
    for name in ("a.jpg", "._a.jpg", ".thumbnails/a.jpg", "b/.c.jpg"):
        photo(tmp_path / name)
    assert ids(tmp_path) == ["a.jpg"]


def test_links_are_followed_and_do_not_go_round(photo, tmp_path):
    photo(tmp_path / "disk" / "a.jpg")
    folder = tmp_path / "photos"
    photo(folder / "b.jpg")
    (folder / "more").symlink_to(tmp_path / "disk")
    (folder / "round").symlink_to(folder)
    assert ids(folder) == ["b.jpg", "more/a.jpg"]


def test_a_folder_without_photos_says_what_it_has(write, tmp_path):
    with pytest.raises(ConfigError, match="has no photos; give a folder with"):
        read_dataset(tmp_path)
    write("dataset_coco.json", "{}")
    with pytest.raises(ConfigError, match=r"did you mean the file dataset_coco\.json in it"):
        read_dataset(tmp_path)


def test_a_name_that_is_no_unicode_is_refused(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    try:
        with open(name, "wb") as file:  # noqa: PTH123 - the name is bytes
            file.write(b"x")
    except OSError:
        pytest.skip("the disk takes only UTF-8 names")
    with pytest.raises(ConfigError, match="is not UTF-8") as error:
        read_dataset(tmp_path)
    str(error.value).encode()


def test_other_settings_do_not_go_with_a_folder(photo, write, tmp_path):
    photo(tmp_path / "a.jpg")
    with pytest.raises(ConfigError, match="is a folder; give the file"):
        read_dataset(tmp_path, format="coco")
    with pytest.raises(ConfigError, match="leave out --images"):
        read_dataset(tmp_path, images=tmp_path)
    with pytest.raises(ConfigError, match="has no splits"):
        read_dataset(tmp_path, split="val")
    with pytest.raises(ConfigError, match="no such folder"):
        read_dataset(write("d.csv", "image\na.jpg\n"), format="folder")

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.locate import SUBFOLDERS, Locator
from promptfuse.evaluation.datasets.records import Row


def row(*names: str) -> Row:
    return Row("row 1", names[0], names, [])


def find(source: Path, *names: str, images: str | None = None) -> tuple[list[str], list[int]]:
    return Locator(str(source), images).locate([row(name) for name in names])[:2]


@pytest.mark.parametrize("folder", ["", *SUBFOLDERS])
def test_photos_are_looked_for_where_they_usually_are(photo, tmp_path, folder):
    file = photo(tmp_path / folder / "a.jpg")
    assert find(tmp_path / "d.csv", "a.jpg") == ([str(file)], [])
    assert find(tmp_path / "annotations" / "d.csv", "a.jpg")[1] == ([0] if not folder else [])
    assert find(tmp_path / "none" / "d.csv", "a.jpg", images=str(tmp_path)) == ([str(file)], [])


def test_the_folder_of_the_file_goes_first(photo, tmp_path):
    for folder in ("", "images"):
        photo(tmp_path / folder / "a.jpg")
    assert find(tmp_path / "d.csv", "a.jpg") == ([str(tmp_path / "a.jpg")], [])


def test_absolute_paths_stay(photo, tmp_path):
    here, gone = photo(tmp_path / "x" / "a.jpg"), tmp_path / "y" / "b.jpg"
    assert find(tmp_path / "d" / "d.csv", str(here), str(gone)) == ([str(here), str(gone)], [1])


def test_relative_paths_lead_out_of_the_folder(photo, tmp_path, monkeypatch):
    photo(tmp_path / "photos" / "a.jpg")
    (tmp_path / "lists").mkdir()
    monkeypatch.chdir(tmp_path / "lists")
    assert find(Path("d.csv"), "../photos/a.jpg", "./../photos/a.jpg") == (["../photos/a.jpg"] * 2, [])


def test_paths_of_windows_are_found(photo, tmp_path):
    file = photo(tmp_path / "x" / "y" / "a.jpg")
    assert find(tmp_path / "d.csv", "x\\y\\a.jpg") == ([str(file)], [])


@pytest.mark.parametrize(("disk", "file"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_composed_or_not(photo, tmp_path, disk, file):
    name = "Möwe à la plage.jpg"
    there = photo(tmp_path / unicodedata.normalize(disk, name))
    (found,), missing = find(tmp_path / "d.csv", unicodedata.normalize(file, name))
    assert missing == []
    assert Path(found).samefile(there)


def test_each_folder_is_listed_once_and_no_file_asked_for(photo, tmp_path, monkeypatch):
    names = [f"{number}.jpg" for number in range(50)]
    for name in names[:40]:
        photo(tmp_path / "images" / name)
    locator = Locator(str(tmp_path / "d.csv"))
    listed = []
    plain = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or plain(folder))
    for asks in ("stat", "lstat"):
        monkeypatch.setattr(os, asks, lambda path, **_: pytest.fail(f"asked for {path}"))
    found, missing, ambiguous = locator.locate([row(name) for name in names])
    monkeypatch.undo()
    assert missing == list(range(40, 50))
    assert not ambiguous
    assert found == [str(tmp_path / "images" / name) for name in names]
    assert sorted(listed) == [str(tmp_path), str(tmp_path / "images")]


def test_an_address_is_believed(tmp_path):
    assert find(tmp_path / "d.csv", "s3://bucket/a.jpg") == (["s3://bucket/a.jpg"], [])
    assert find(tmp_path / "d.csv", "./a.jpg", images="s3://bucket/x/")[0] == ["s3://bucket/x/a.jpg"]
    both = row("val2014/a.jpg", "a.jpg")
    for images in ("gs://b", "gs://b/val2014"):
        assert Locator("d.json", images).locate([both])[:2] == (["gs://b/val2014/a.jpg"], [])
    assert Locator("nowhere://b/lists/d.json").locate([row("a.jpg")])[0] == ["nowhere://b/lists/a.jpg"]
    zipped = Locator("zip://lists/d.json::nowhere://b/c.zip").locate([row("a.jpg")])
    assert zipped[0] == ["zip://lists/a.jpg::nowhere://b/c.zip"]


@pytest.mark.parametrize("folder", ["annotations", "val2017", "images/val2017", "../images", "../val2017"])
def test_behind_an_address_usual_folders_are_asked_too(photo, tmp_path, folder):
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    file = photo(annotations / folder / "a.jpg" if folder != "annotations" else annotations / "a.jpg")
    address = f"file://{annotations.as_posix()}/d.json"
    found = find_at(address, "a.jpg")
    assert Path(found.removeprefix("file://")).samefile(file)
    assert find_at(address, "gone.jpg") == f"file://{annotations.as_posix()}/gone.jpg"


def find_at(address: str, name: str) -> str:
    return Locator(address).locate([row(name)]).paths[0]


def test_the_folder_that_the_files_name_speaks_of_goes_first(photo, tmp_path):
    train, val = (photo(tmp_path / folder / "1.jpg") for folder in ("train", "val"))
    for name, wanted in (("captions_train.json", train), ("val.csv", val), ("trainval.json", val)):
        found = Locator(str(tmp_path / "annotations" / name)).locate([row("1.jpg")])
        assert found.paths == [str(wanted)]
        other = val if wanted is train else train
        assert found.ambiguous == (str(wanted), str(other))


def test_the_folder_that_is_given_goes_first(photo, tmp_path):
    own, val = photo(tmp_path / "im" / "1.jpg"), photo(tmp_path / "im" / "val" / "1.jpg")
    found = Locator(str(tmp_path / "captions_val.csv"), str(tmp_path / "im")).locate([row("1.jpg")])
    assert (found.paths, found.ambiguous) == ([str(own)], (str(own), str(val)))


def test_a_link_to_nowhere_is_no_other_photo(photo, tmp_path):
    file = photo(tmp_path / "images" / "1.jpg")
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "1.jpg").symlink_to(tmp_path / "gone.jpg")
    found = Locator(str(tmp_path / "d.csv")).locate([row("1.jpg")])
    assert (found.paths, found.ambiguous) == ([str(file)], ())


def test_a_link_to_the_same_folder_is_not_another_one(photo, tmp_path):
    photo(tmp_path / "val" / "1.jpg")
    (tmp_path / "images").symlink_to(tmp_path / "val")
    assert not Locator(str(tmp_path / "d.csv")).locate([row("1.jpg")]).ambiguous


def test_a_folder_that_is_not_there_or_shut_is_named(photo, tmp_path):
    with pytest.raises(ConfigError, match="no such folder of photos"):
        Locator(str(tmp_path / "d.csv"), str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no such folder of photos"):
        Locator(str(tmp_path / "d.csv"), str(photo(tmp_path / "a.jpg")))
    shut = tmp_path / "shut"
    photo(shut / "a.jpg")
    shut.chmod(0)
    try:
        if os.access(shut, os.R_OK):
            pytest.skip("this user may list every folder")
        with pytest.raises(ConfigError, match=r"shut: cannot be listed .*; check its permissions"):
            find(tmp_path / "d.csv", "shut/a.jpg")
    finally:
        shut.chmod(0o700)


@given(st.sets(st.text("abcÄ é.", min_size=1, max_size=6).filter(lambda name: name.strip(". ")), max_size=8))
@settings(deadline=None, max_examples=40)
def test_what_is_found_is_what_is_there(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    there = {name for index, name in enumerate(sorted(names)) if index % 2}
    for name in there:
        (folder / name).write_bytes(b"x")
    ordered = sorted(names)
    paths, missing = find(folder / "d.csv", *ordered)
    assert paths == [str(folder / name) for name in ordered]
    assert {ordered[index] for index in missing} == set(ordered) - there

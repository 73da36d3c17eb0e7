"""``check_dataset`` and ``promptfuse datasets``: what is found, missing and unreadable."""

from __future__ import annotations

import json
import re
import threading
import warnings
from pathlib import Path

import fsspec
import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import register
from promptfuse.evaluation.datasets.check import check_dataset

Outcome = tuple[int, str, str]


@pytest.fixture
def mixed(write, photo, tmp_path) -> Path:
    """Six photos in two splits, of which one is missing, one is cut short and one is none."""
    for name in ("a.png", "b.png", "c.png"):
        photo(tmp_path / "images" / name)
    (tmp_path / "images" / "short.png").write_bytes((tmp_path / "images" / "a.png").read_bytes()[:50])
    (tmp_path / "images" / "text.png").write_text("hello")
    rows = [
        {"image": "a.png", "split": "val", "captions": ["x", " ", "y"]},
        {"image": "b.png", "split": "val", "captions": ["x", "y", "z", "u"]},
        {"image": "c.png", "split": "train", "captions": []},
        {"image": "gone.png", "split": "train", "captions": ["x"]},
        {"image": "short.png", "split": "train", "captions": ["x"]},
        {"image": "text.png", "captions": ["x"]},
    ]
    return write("mixed.json", rows)


def test_everything_is_counted_and_named(mixed, tmp_path):
    report = check_dataset(mixed)
    assert (report.name, report.source, report.format, report.photos) == ("mixed", str(mixed), "table", 6)
    assert report.splits == {"val": 2, "train": 3, "": 1}
    assert list(report.captions) == [2, 4, 0, 1, 1, 1]
    assert report.without_captions == ["c.png"]
    assert [bad.id for bad in report.missing] == ["gone.png"]
    assert [(bad.id, bad.image) for bad in report.unreadable] == [
        (name, str(tmp_path / "images" / name)) for name in ("short.png", "text.png")
    ]
    assert "damaged or cut short" in report.unreadable[0].reason
    assert report.unreadable[1].reason.startswith("not an image that Pillow can read")
    assert report.problems == ["1 empty caption left out"]
    assert report.duplicate_ids == report.duplicate_images == {}
    assert not report.ok


def test_only_photos_of_the_split_are_decoded(mixed):
    report = check_dataset(mixed, split="val")
    assert report.ok
    assert (report.photos, report.split, report.splits) == (2, "val", {"val": 2, "train": 3, "": 1})
    assert not check_dataset(mixed, split="train").ok
    with pytest.raises(ConfigError, match="no photos in the split 'vall'"):
        check_dataset(mixed, split="vall")


def test_ids_and_files_that_occur_twice(write, photo, tmp_path):
    for name in ("a.png", "b.png"):
        photo(tmp_path / name)
    rows = [["1", "a.png"], ["2", "b.png"], ["1", "b.png"], ["3", "./a.png"], ["1", "a.png"]]
    path = write("d.csv", "\n".join(",".join(row) for row in [["id", "image"], *rows]))
    report = check_dataset(path)
    assert report.duplicate_ids == {"1": ("line 2", "line 4")}
    assert report.duplicate_images == {
        str(tmp_path / "a.png"): ["1", "3", "1"],
        str(tmp_path / "b.png"): ["2", "1"],
    }
    assert not report.ok
    # One file under two ids keeps no photo from being used.
    assert check_dataset(write("e.csv", "id,image\n1,a.png\n2,a.png\n")).ok


def test_progress_and_outcome_do_not_depend_on_the_threads(mixed, photo, tmp_path):
    for number in range(150):
        photo(tmp_path / "many" / f"{number:03}.png")
    for number in (3, 77, 140):
        (tmp_path / "many" / f"{number:03}.png").write_bytes(b"hello")
    reports = []
    for workers in (1, 2, 5):
        calls: list[tuple[int, int]] = []
        reports.append(
            check_dataset(
                tmp_path / "many",
                workers=workers,
                progress=lambda done, total, calls=calls: calls.append((done, total)),
            )
        )
        assert calls == [(done, 150) for done in range(1, 151)]
    found = [{**report.to_dict(), "seconds": 0} for report in reports]
    assert found[0] == found[1] == found[2]
    assert [bad["id"] for bad in found[0]["unreadable"]] == ["003.png", "077.png", "140.png"]


def test_threads_end_and_warnings_are_left_as_they_were(mixed):
    filters, threads = list(warnings.filters), threading.active_count()
    check_dataset(mixed, workers=4)
    assert warnings.filters == filters
    assert threading.active_count() == threads


def test_photos_behind_addresses_are_read(photo, tmp_path):
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pipe_file("/set/a.png", photo(tmp_path / "a.png").read_bytes())
    system.pipe_file("/set/b.png", b"hello")
    system.pipe_file("/set/d.csv", b"image\na.png\nb.png\nc.png\n")
    report = check_dataset("memory://set/d.csv")
    system.store.clear()
    assert report.missing == []  # Nobody was asked before.
    assert [bad.id for bad in report.unreadable] == ["b.png", "c.png"]
    assert report.unreadable[1].reason == "no such file; check the address"


# -------------------------------------------------------------------------------------- command line


def test_all_fine_is_exit_code_0(promptfuse, write, photo, tmp_path):
    for name in ("a.png", "b.png"):
        photo(tmp_path / name)
    path = write("d.csv", "image,caption\na.png,x\na.png,y\nb.png,z\nb.png,u\n")
    code, out, err = promptfuse("datasets", "check", path)
    assert (code, err) == (0, "")
    assert out == f"{path}: table, 2 photos\n  captions          4; 2 a photo\n"
    code, out, _ = promptfuse("datasets", "check", tmp_path)
    note = "  note: d.csv is not read; name the file itself to read its captions\n"
    assert (code, out) == (0, f"{tmp_path}: folder, 2 photos\n  captions          none\n{note}")


def test_something_bad_is_exit_code_2_with_names(promptfuse, mixed, tmp_path):
    code, out, err = promptfuse("datasets", "check", mixed)
    assert (code, err) == (2, f"promptfuse: {mixed}: 1 missing, 2 unreadable\n")
    images = tmp_path / "images"
    patterns = [
        rf"{mixed}: table, 6 photos",
        r"  splits            val 2, train 3, \(none\) 1",
        r"  captions          9; 0 to 4 a photo, median 1",
        r"  without captions  1",
        r"    c.png",
        r"  missing           1",
        rf"    {images}/gone.png",
        r"  unreadable        2",
        rf"    {images}/short.png: the image is damaged or cut short \(.*\); save it again",
        rf"    {images}/text.png: not an image .*",
        r"  note: 1 empty caption left out",
    ]
    lines = out.splitlines()
    assert len(lines) == len(patterns)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line


def test_the_first_ten_are_named_and_json_has_all(promptfuse, write, tmp_path):
    path = write("d.csv", "image\n" + "".join(f"{number:02}.png\n" for number in range(25)))
    code, out, _ = promptfuse("datasets", "check", path)
    assert code == 2
    assert [line.strip() for line in out.splitlines()[3:]] == [
        *(str(tmp_path / f"{number:02}.png") for number in range(10)),
        "and 15 more",
        f"note: no photo was found in {tmp_path}; --images DIR says where they are",
    ]
    code, out, err = promptfuse("datasets", "check", path, "--json")
    assert (code, err) == (2, "")
    row = json.loads(out)
    assert len(row["missing"]) == 25
    assert row["missing"][24] == {"id": "24.png", "image": str(tmp_path / "24.png")}


def test_json_has_everything(promptfuse, mixed, tmp_path):
    code, out, err = promptfuse(
        "datasets",
        "check",
        mixed,
        "--split",
        "train",
        "--images",
        tmp_path / "images",
        "--format",
        "table",
        "--json",
    )
    assert (code, err) == (2, "")
    row = json.loads(out)
    assert row.pop("seconds") >= 0
    reason = row["unreadable"][0].pop("reason")
    assert "cut short" in reason
    assert row == {
        "name": "mixed",
        "source": str(mixed),
        "format": "table",
        "split": "train",
        "photos": 3,
        "ok": False,
        "splits": {"val": 2, "train": 3, "": 1},
        "captions": {"total": 2, "min": 0, "median": 1, "max": 1},
        "without_captions": ["c.png"],
        "missing": [{"id": "gone.png", "image": str(tmp_path / "images" / "gone.png")}],
        "unreadable": [{"id": "short.png", "image": str(tmp_path / "images" / "short.png")}],
        "duplicate_ids": [],
        "duplicate_images": [],
        "problems": ["1 empty caption left out"],
    }


def test_names_with_control_characters_stay_in_their_line(promptfuse, write):
    path = write("d.json", [{"image": "a\nb\u001b[31m.png"}])
    _, out, _ = promptfuse("datasets", "check", path)
    assert out.splitlines()[3].endswith("a\\nb\\x1b[31m.png")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.csv"], "none.csv: no such file or folder"),
        (["coco-karpaty"], "did you mean 'coco-karpathy'?"),
        (["coco-karpathy"], "set PROMPTFUSE_DATA"),
        ([], "Missing argument"),
        ([".", "--split", "val", "--images", "x"], "has no photos"),
    ],
)
def test_what_cannot_be_read_is_one_line(promptfuse, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    for more in ([], ["--json"]):
        code, out, err = promptfuse("datasets", "check", *arguments, *more)
        assert (code, out) == (2, "")
        assert said in err
        assert err.startswith("promptfuse: ")
        assert err.count("\n") == 1


def test_names_are_listed(promptfuse, write, monkeypatch, tmp_path):
    code, out, err = promptfuse("datasets", "list")
    assert code == 0
    assert (
        "coco-karpathy       COCO 2014, Karpathy's splits; 123,287 photos; PROMPTFUSE_DATA is not set\n"
        in out
    )
    assert "Set PROMPTFUSE_DATA to the folder" in err
    assert str(tmp_path) not in out
    path = write("coco/dataset_coco.json", {})
    monkeypatch.setenv("PROMPTFUSE_DATA", str(tmp_path))
    register("mine", tmp_path / "none.csv", about="my photos")
    code, out, err = promptfuse("datasets", "list")
    assert code == 0
    assert err.startswith("Name data sets in ")
    assert f"COCO 2014, Karpathy's splits; 123,287 photos; {path}\n" in out
    assert f"mine                my photos; {tmp_path / 'none.csv'} is missing\n" in out
    code, out, err = promptfuse("datasets", "list", "--json")
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert rows["coco-karpathy"]["source"] == str(path)
    assert rows["coco-karpathy"]["state"] == "found"
    assert rows["nocaps-val"]["source"] is None
    assert rows["mine"] == {
        "name": "mine",
        "source": str(tmp_path / "none.csv"),
        "state": "missing",
        "about": "my photos",
    }

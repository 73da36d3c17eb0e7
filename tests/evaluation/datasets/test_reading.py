"""Formats are told from the content, and what is none is refused in one line."""

from __future__ import annotations

import gc
import json
import zipfile
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import open_photo, read_dataset

KARPATHY = {"images": [{"filename": "a.jpg", "split": "val", "sentences": [{"raw": "x", "tokens": ["x"]}]}]}
COCO = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "x"}]}
CONTENTS = {
    "karpathy": [json.dumps(KARPATHY), json.dumps(KARPATHY, indent=2), "\ufeff\n " + json.dumps(KARPATHY)],
    "coco": [json.dumps(COCO), json.dumps(COCO, indent=1) + "\n\n"],
    "table": [
        "image,caption\na.jpg,x\n",
        "\n\nimage\tcaption\na.jpg\tx",
        json.dumps([{"image": "a.jpg", "caption": "x"}]),
        json.dumps([{"image": "a.jpg", "caption": "x"}], indent=2),
        '{"image": "a.jpg", "caption": "x"}',
        '\ufeff{"image": "a.jpg", "caption": "x"}\r\n{"image": "a.jpg", "caption": "y"}\r\n',
    ],
}
CASES = [(kind, text) for kind, texts in CONTENTS.items() for text in texts]


@pytest.mark.parametrize("name", ["data", "data.csv"])
@pytest.mark.parametrize(("kind", "text"), CASES)
def test_the_content_tells_the_format_and_not_the_name(write, name, kind, text):
    path = write(name, text)
    dataset = read_dataset(path)
    assert dataset.format == kind
    assert dataset.photos[0].references[0] == "x"
    assert read_dataset(path, format=kind).photos == dataset.photos


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.json", "", "is empty"),
        ("d.json", "\ufeff \r\n", "is empty"),
        ("d.json", '{"images": [', "not valid JSON (Expecting value, line 1, column 13)"),
        ("d.json", "image,caption\na.jpg,x\n", 'not valid JSON (it begins with "image,caption'),
        ("d.json", '{"a": 1}', 'unknown format (it has ["a"]); formats: karpathy and coco (JSON), table'),
        ("d.json", '{"images": 5}', "unknown format"),
        ("d.json", "[" * 100_000, "not valid JSON"),
        ("d.csv", b"image,caption\na.jpg,caf\xe9\n", "line 2: not UTF-8 text"),
        ("d.bin", b"\x00\x01\x02", "contains binary data"),
        ("a.jpg", b"\xff\xd8\xff\xe0", "is a photo, not a data set"),
        ("results.json", [{"image_id": 1, "caption": "x"}], "no column names the photo"),
    ],
)
def test_what_is_no_data_set_is_refused(write, name, content, said):
    path = write(name, content)
    with pytest.raises(ConfigError) as error:
        read_dataset(path)
    assert said in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "format", "said"),
    [
        (json.dumps(COCO), "cocoo", "no format 'cocoo' of data sets; did you mean 'coco'?"),
        (json.dumps(COCO), "xml", "choose from: karpathy, coco, table, folder, datasets, auto"),
        (json.dumps(COCO), "karpathy", "the field 'filename' is missing"),
        (json.dumps(KARPATHY), "coco", "the field 'id' is missing"),
        ("image\na.jpg\n", "coco", "not JSON, which the format coco is"),
        ('{"image": "a.jpg"}\n{"image": "b.jpg"}', "karpathy", "JSON lines, not of the format karpathy"),
        ('[{"image": "a.jpg"}]', "karpathy", "expected fields"),
        (json.dumps(COCO), "table", "no column names the photo"),
    ],
)
def test_a_format_that_is_asked_for_must_be_that_of_the_file(write, text, format, said):
    with pytest.raises(ConfigError) as error:
        read_dataset(write("data", text), format=format)
    assert said in str(error.value)


def read_or_refused(path: Path, **settings: str) -> None:
    """Read a file; if that is refused, it must be so in one line that names the file."""
    try:
        photos = read_dataset(path, **settings).photos
    except ConfigError as error:
        message = str(error)
    else:
        assert photos
        assert all(photo.id and photo.image for photo in photos)
        return
    assert "\n" not in message
    assert message.startswith(f"{path}: ")


@given(st.binary(max_size=200) | st.text('{}[]",:\n\tabimage0 ', max_size=120).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=120)
def test_any_bytes_are_read_or_refused(tmp_path, data):
    path = tmp_path / "any"
    path.write_bytes(data)
    read_or_refused(path)


KEYS = """images annotations id file_name filename image caption captions sentences raw image_id split cocoid
filepath""".split()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=120)
def test_any_json_is_read_or_refused(tmp_path, value):
    path = tmp_path / "any.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    for format in ("auto", "karpathy", "coco", "table"):
        read_or_refused(path, format=format)


def test_files_and_folders_behind_addresses(photo, tmp_path):
    system = fsspec.filesystem("memory")
    system.store.clear()
    data = photo(tmp_path / "a.png").read_bytes()
    for name in ("x/b.png", "a.png", ".c.png"):
        system.pipe_file(f"/set/{name}", data)
    system.pipe_file("/set/d.csv", b"image,caption\na.png,One\nmemory://set/x/b.png,Two\n")
    folder = read_dataset("memory://set")
    assert [(found.id, found.image) for found in folder.photos] == [
        ("a.png", "memory://set/a.png"),
        ("x/b.png", "memory://set/x/b.png"),
    ]
    table = read_dataset("memory://set/d.csv")
    assert [found.image for found in table.photos] == ["memory://set/a.png", "memory://set/x/b.png"]
    assert (table.name, folder.name) == ("d", "set")
    for found in (*folder.photos, *table.photos):
        assert open_photo(found.image).size == (16, 12)
    with pytest.raises(ConfigError, match=r"memory://set/none\.csv: no such file"):
        read_dataset("memory://set/none.csv")
    with pytest.raises(ConfigError, match=r"nosuch://a: cannot be read"):
        read_dataset("nosuch://a")
    system.store.clear()


@pytest.mark.parametrize("inside", ["", "deep/er/"])
def test_photos_in_an_archive(photo, tmp_path, inside):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("b.png", "x/a.png"):
            archive.write(photo(tmp_path / "a.png"), inside + name)
        archive.writestr(f"{inside}d.csv", "image\nx/a.png\n")
    folder = read_dataset(f"zip://{inside}::{path}")
    assert [found.id for found in folder.photos] == ["b.png", "x/a.png"]
    assert folder.name == ("er" if inside else "photos")
    table = read_dataset(f"zip://{inside}d.csv::{path}")
    assert [found.image for found in table.photos] == [folder.photos[1].image]
    for found in folder.photos:
        assert open_photo(found.image).size == (16, 12)


def test_the_garbage_collector_is_left_as_it_was(write):
    path = write("d.csv", "image\na.jpg\n")
    for before in (True, False):
        (gc.enable if before else gc.disable)()
        try:
            read_dataset(path)
            with pytest.raises(ConfigError):
                read_dataset(path, format="coco")
            assert gc.isenabled() is before
        finally:
            gc.enable()


def test_a_file_that_git_lfs_has_not_fetched(tmp_path):
    for name in ("captions.json", "captions.csv", "captions.jsonl"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n")
        with pytest.raises(ConfigError, match=r"is a git-lfs pointer.*git lfs pull") as caught:
            read_dataset(str(tmp_path / name))
        assert name in str(caught.value)

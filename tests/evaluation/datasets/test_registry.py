from __future__ import annotations

import json
import time
from pathlib import Path

import platformdirs
import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import names, read_dataset, register, registered
from promptfuse.evaluation.datasets.names import KNOWN

FLICKR8K = Path(__file__).resolve().parents[4] / "shared" / "data" / "flickr8k"


@pytest.fixture
def ten(write) -> Path:
    """Photos 0 to 9, of which the odd ones are in ``val``."""
    rows = [{"image": f"{n}.jpg", "split": "val" if n % 2 else "train"} for n in range(10)]
    return write("ten.json", rows)


def ids(source: object, **settings: object) -> str:
    return "".join(photo.id[0] for photo in read_dataset(source, **settings).photos)


# ------------------------------------------------------------------------------------------ selecting


def test_start_and_limit_count_within_the_split(ten):
    assert ids(ten) == "0123456789"
    assert ids(ten, start=8) == "89"
    assert ids(ten, start=2, limit=3) == "234"
    assert ids(ten, limit=99) == "0123456789"
    assert ids(ten, split="val") == "13579"
    assert ids(ten, split="val", start=1, limit=2) == "35"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"start": -1}, "start must be at least 0, got -1"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"start": 10}, "start 10 is past the last of its 10 photos"),
        ({"split": "val", "start": 5}, "start 5 is past the last of its 5 photos"),
        ({"split": "vla"}, "no photos in the split 'vla'; did you mean 'val'?"),
        ({"split": "test"}, "no photos in the split 'test'; choose from: train, val"),
        ({"split": "restval"}, "no photos in the split 'restval'"),
        ({"images": "nowhere"}, "nowhere: no such folder of photos"),
    ],
)
def test_wrong_settings_are_refused(ten, settings, said):
    with pytest.raises(ConfigError) as error:
        read_dataset(ten, **settings)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_problems_are_those_of_the_photos_that_are_read(ten, photo, tmp_path):
    for number in range(0, 10, 2):
        photo(tmp_path / f"{number}.jpg")
    assert read_dataset(ten, split="train").problems == ()
    (problem,) = read_dataset(ten, split="val", start=1, limit=3).problems
    assert problem.startswith(f"3 of 3 photos are missing, e.g. {tmp_path / '3.jpg'};")


def test_the_name_is_that_of_the_file_unless_given(ten, monkeypatch):
    assert read_dataset(ten).name == "ten"
    assert read_dataset(ten, name="mine").name == "mine"
    monkeypatch.chdir(ten.parent)
    assert read_dataset("ten.json").source == "ten.json"
    assert read_dataset(Path("ten.json")).photos[0].image == "0.jpg"


def test_the_home_folder_is_known(ten, monkeypatch):
    monkeypatch.setenv("HOME", str(ten.parent))
    assert read_dataset("~/ten.json").source == str(ten)
    with pytest.raises(ConfigError, match="no such file or folder"):
        read_dataset("~nobody-of-this-name/ten.json")


def test_time_grows_with_the_photos_and_not_with_their_square(write):
    rows = [{"image": f"{number}.jpg", "split": "train"} for number in range(30_000)]
    path = write("many.jsonl", "\n".join(map(json.dumps, rows)))
    begin = time.process_time()
    dataset = read_dataset(path, split="train", start=1)
    # Half a second; a list gone through for each photo would take many.
    assert time.process_time() - begin < 5
    assert len(dataset.photos) == 29_999
    assert dataset.problems[0].startswith("29,999 of 29,999 photos are missing")


# ---------------------------------------------------------------------------------------------- names


def test_a_registered_name_stands_for_its_settings(ten, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "elsewhere" / "1.jpg")
    register("mine", "ten.json", images="elsewhere", split="val", about="ten photos")
    assert "mine" in registered()
    monkeypatch.chdir(photo(tmp_path / "sub" / "a.jpg").parent)
    dataset = read_dataset("mine", limit=1)
    assert (dataset.name, dataset.source) == ("mine", str(ten))
    assert dataset.photos[0].image == str(tmp_path / "elsewhere" / "1.jpg")
    # What is given goes first.
    assert ids("mine", split="train") == "02468"
    assert read_dataset("mine", name="other").name == "other"
    with pytest.raises(ConfigError, match="top level: expected fields"):
        read_dataset("mine", format="karpathy")
    register("mine", ten)
    assert ids("mine") == "0123456789"


def test_a_path_that_exists_goes_before_a_name(ten, write, monkeypatch):
    register("coco-val2017", write("other.csv", "image\nx.jpg\n"))
    assert ids("coco-val2017") == "x"
    monkeypatch.chdir(ten.parent)
    ten.rename("coco-val2017")
    assert ids("coco-val2017") == "0123456789"


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", " "])
def test_a_name_is_no_path(ten, name):
    with pytest.raises(ConfigError, match="cannot name a data set"):
        register(name, ten)


def test_unknown_names_are_met_with_the_nearest_or_all(ten):
    register("mine", ten)
    with pytest.raises(ConfigError, match=r"coco-karpaty: .*did you mean 'coco-karpathy'\?"):
        read_dataset("coco-karpaty")
    with pytest.raises(ConfigError, match=r"choose from: coco-karpathy, .*, mine, nocaps-test, nocaps-val"):
        read_dataset("zzz")
    for path in ("photos/none", "none.json", "a\0b.json"):
        with pytest.raises(ConfigError, match="no such file or folder; check the path"):
            read_dataset(path)
    with pytest.raises(ConfigError, match="has no path"):
        read_dataset("")


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("form", [0, -1])
def test_known_names_lie_in_the_data_folder(write, photo, tmp_path, monkeypatch, name, form):
    known = KNOWN[name]
    with pytest.raises(ConfigError, match=f"{name}: set PROMPTFUSE_DATA .* has {known.files[0]}"):
        read_dataset(name)
    monkeypatch.setenv("PROMPTFUSE_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=f"{name}: PROMPTFUSE_DATA=.* does not contain {known.files[0]}"):
        read_dataset(name)
    if known.format == "karpathy":
        image = {"filename": "a.jpg", "filepath": "val2014", "split": "val", "sentences": [{"raw": "x"}]}
        document, below = {"images": [image]}, "val2014/a.jpg"
    else:
        part = name.removeprefix("coco-")
        document, below = (
            {"images": [{"id": 1, "file_name": "a.jpg"}]},
            f"{part if 'coco' in name else 'val'}/a.jpg",
        )
    path = write(known.files[form], document)
    file = photo(tmp_path / name.split("-")[0] / below)
    dataset = read_dataset(name)
    assert (dataset.name, dataset.source, dataset.format) == (name, str(path), known.format)
    assert [found.image for found in dataset.photos] == [str(file)]


def test_the_data_folder_may_be_an_address(monkeypatch):
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    document = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}
    system.pipe_file("/data/coco/annotations/captions_val2017.json", json.dumps(document).encode())
    monkeypatch.setenv("PROMPTFUSE_DATA", "memory://data")
    assert read_dataset("coco-val2017").source == "memory://data/coco/annotations/captions_val2017.json"
    system.store.clear()


def test_users_name_data_sets_in_files(ten, write, tmp_path, monkeypatch):
    config = Path(platformdirs.user_config_dir("promptfuse"))
    config.mkdir(exist_ok=True)
    (config / "datasets.yaml").write_text(f"ten: {ten}\nhalf: {{source: {ten}, split: val, about: odd}}\n")
    try:
        assert ids("ten") == "0123456789"
        assert ids("half") == "13579"
        # That of the data folder goes first; its paths are relative to it.
        write("data/datasets.yaml", "ten: {source: ../ten.json, split: train}\nmore: s3://bucket/photos\n")
        monkeypatch.setenv("PROMPTFUSE_DATA", str(tmp_path / "data"))
        assert ids("ten") == "02468"
        assert ids("half") == "13579"
        assert {"ten", "half", "more"} < set(registered())
        assert names.find_name("more").source == "s3://bucket/photos"
        register("ten", ten)
        assert ids("ten") == "0123456789"
    finally:
        (config / "datasets.yaml").unlink()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 5", "a: expected a path, or fields with 'source'"),
        ("a: {format: coco}", "expected a path, or fields with 'source'"),
        ("a: {source: x, imags: y}", "a: no field 'imags'; did you mean 'images'?"),
        ("a: {source: x, split: 5}", "a: split: expected a text, found 5; put it in quotes"),
        ("a/b: x", "'a/b' cannot name a data set"),
        ("- a", "expected fields such as"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_file_of_names_with_something_wrong(write, tmp_path, monkeypatch, text, said):
    path = write("datasets.yaml", text)
    monkeypatch.setenv("PROMPTFUSE_DATA", str(tmp_path))
    with pytest.raises(ConfigError) as error:
        read_dataset("whatever")
    assert said in str(error.value)
    assert str(path) in str(error.value)


# ----------------------------------------------------------------------------------------- a real one


@pytest.mark.skipif(not FLICKR8K.is_dir(), reason="Flickr8k is not at hand (shared/data/flickr8k)")
def test_flickr8k():
    dataset = read_dataset(FLICKR8K / "captions.json")
    assert len(dataset.photos) == 6997
    assert dataset.problems == ()
    assert {len(photo.references) for photo in dataset.photos} == {5}
    dev = read_dataset(FLICKR8K / "captions.json", split="dev", images=FLICKR8K / "images", limit=2)
    assert [photo.split for photo in dev.photos] == ["dev", "dev"]
    assert all(Path(photo.image).is_file() for photo in dev.photos)
    assert len(read_dataset(FLICKR8K / "images").photos) == 6997

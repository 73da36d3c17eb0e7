from __future__ import annotations

import json
import re

import fsspec
import pytest

from promptfuse.errors import ConfigError
from promptfuse.report.runs import compare, load_runs

FAILED = {"text": None, "error": "cut short", "terms": {}, "weights": {}, "value": None}


def test_photos_stand_in_the_order_of_the_data_set(make_run):
    folder = make_run("one", numbers=[5, 2, 9, 0])
    comparison = compare(load_runs([folder]))
    assert list(comparison.ids) == ["p0", "p2", "p5", "p9"]
    assert comparison.dataset == "toys"
    assert comparison.references["p2"][0] == "a small child jumps into the water"
    assert comparison.image("p9").endswith("photo9.jpg")
    assert not comparison.notes


def test_common_photos_are_compared(make_run):
    runs = load_runs([make_run("one", numbers=range(8)), make_run("two", numbers=range(4, 12))])
    comparison = compare(runs)
    assert list(comparison.ids) == ["p4", "p5", "p6", "p7"]
    assert "4 common ones" in comparison.notes[0]
    assert [note.split()[0] for note in comparison.notes[1:]] == ["one", "two"]


def test_photos_that_failed_are_shown_but_not_measured(make_run):
    runs = load_runs([make_run("one", lines={3: FAILED}), make_run("two", lines={7: FAILED})])
    comparison = compare(runs)
    assert {"p3", "p7"} == set(comparison.shown) - set(comparison.ids)
    assert [one.id for one in runs[0].failures] == ["p3"]
    assert any("2 photos failed in a run" in note for note in comparison.notes)


def test_different_data_sets_are_named(make_run):
    other = {"data": {"name": "birds", "source": "birds.json"}}
    runs = load_runs([make_run("one", numbers=range(4)), make_run("two", numbers=[8], manifest=other)])
    with pytest.raises(ConfigError, match=re.escape("two is on birds (birds.json)")) as error:
        compare(runs)
    assert "one is on toys" in str(error.value)


def test_one_id_of_two_photos_is_not_common(make_run, photos):
    swapped = {number: {"image": str(photos[11 - number])} for number in range(12)}
    with pytest.raises(ConfigError, match="no photo in common"):
        compare(load_runs([make_run("one"), make_run("two", lines=swapped)]))


def test_photos_in_another_folder_are_the_same(make_run):
    moved = {number: {"image": f"s3://bucket/photo{number}.jpg"} for number in range(12)}
    assert len(compare(load_runs([make_run("one"), make_run("two", lines=moved)])).ids) == 12


def test_references_by_path(make_run, references):
    folder = make_run("one", manifest={"data": {}})
    bare = compare(load_runs([folder]))
    assert not bare.references
    assert "--references" in bare.notes[0]
    assert compare(load_runs([folder]), str(references)).references["p1"]


def test_a_data_set_that_is_gone_is_told(make_run, references):
    folder = make_run("one")
    references.unlink()
    comparison = compare(load_runs([folder]))
    assert not comparison.references
    assert "captions.jsonl" in comparison.notes[0]


def test_a_split_that_the_file_no_longer_has(make_run, references):
    data = {"name": "toys", "source": str(references), "split": "dev"}
    assert len(compare(load_runs([make_run("one", manifest={"data": data})])).references) == 12


def test_references_without_captions(make_run, tmp_path, photos):
    folder = make_run("one")
    empty = tmp_path / "empty.jsonl"
    empty.write_text(json.dumps({"id": "p1", "image": str(photos[1])}) + "\n")
    with pytest.raises(ConfigError, match=r"empty\.jsonl"):
        compare(load_runs([folder]), str(empty))


def test_photos_without_references_are_left_out(make_run, references):
    lines = references.read_text().splitlines(keepends=True)
    references.write_text("".join(lines[:9]))
    comparison = compare(load_runs([make_run("one")]))
    assert len(comparison.ids) == 9
    assert "3 photos have no references" in comparison.notes[0]


def test_names_tell_runs_apart(make_run):
    folders = [make_run("a/ours"), make_run("b/ours"), make_run("c/theirs")]
    assert [run.name for run in load_runs(folders)] == ["a/ours", "b/ours", "c/theirs"]
    assert [run.name for run in load_runs(folders[1:])] == ["ours", "theirs"]


def test_a_run_that_is_still_going_is_told(make_run):
    folder = make_run("one", manifest={"photos": 40})
    assert any("12 of 40" in note for note in compare(load_runs([folder])).notes)


def test_manifests_may_say_little(make_run):
    folder = make_run("one")
    (folder / "manifest.json").unlink()
    run = load_runs([folder])[0]
    assert (run.manifest, run.models, run.settings) == ({}, {}, {})
    (folder / "manifest.json").write_text('{"models": ["odd"], "recipe": 3}')
    run = load_runs([folder])[0]
    assert (run.models, run.settings) == ({}, {})
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        load_runs([folder])


def test_folders_behind_addresses(make_run):
    folder = make_run("one")
    system = fsspec.filesystem("memory")
    for name in ("predictions.jsonl", "manifest.json"):
        system.pipe(f"/runs/one/{name}", (folder / name).read_bytes())
    system.pipe("/runs/two/predictions.jsonl", b"{}\n")
    local, remote = load_runs([folder, "memory://runs/one/"])
    assert (remote.name, remote.folder) == ("runs/one", "memory://runs/one/")
    assert (remote.predictions, remote.manifest) == (local.predictions, local.manifest)
    with pytest.raises(ConfigError, match=re.escape("memory://runs/two/predictions.jsonl: line 1")):
        load_runs(["memory://runs/two"])
    with pytest.raises(ConfigError, match=re.escape("memory://runs/none: no such file")):
        load_runs(["memory://runs/none"])


def test_folders_that_are_no_runs(tmp_path, make_run):
    folder = make_run("one")
    with pytest.raises(ConfigError, match=r"no predictions\.jsonl"):
        load_runs([tmp_path])
    with pytest.raises(ConfigError, match="given twice"):
        load_runs([folder, folder / ".." / "one"])
    for field, value in {"text": 5, "image": None, "seconds": "1", "terms": {"fluency": "low"}}.items():
        wrong = make_run(f"wrong-{field}", lines={3: {field: value}})
        with pytest.raises(ConfigError, match="line 4 is not a prediction"):
            load_runs([wrong])
    (folder / "predictions.jsonl").write_text("")
    with pytest.raises(ConfigError, match="no predictions yet"):
        load_runs([folder])

"""Runs whose files go to an address: whole copies there, and whoever has more lines counts."""

import shutil

import pytest

import promptfuse as pf
from promptfuse.evaluation.runs import load_run_config, run_dataset
from promptfuse.evaluation.runs.outputs import RemoteOutput, open_output
from tests.evaluation.runs.conftest import PHOTOS, contents

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def copy_of(undisturbed, folder, lines):
    folder.mkdir(parents=True, exist_ok=True)
    whole = (undisturbed / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "predictions.jsonl").write_bytes(b"".join(whole[:lines]))
    shutil.copy(undisturbed / "manifest.json", folder)


def test_a_run_behind_an_address_goes_on_from_whichever_has_more(undisturbed, config, tmp_path, cache):
    there = tmp_path / "bucket" / "run"
    address = there.as_uri()
    here = open_output(address).folder
    assert here.parent == cache / "runs"
    copy_of(undisturbed, there, 5)  # As another machine left it.
    assert run_dataset(config, address).fresh == 3
    assert contents(there) == contents(here) == contents(undisturbed)
    copy_of(undisturbed, there, 2)  # As a machine leaves it that was killed before the last copy.
    copy_of(undisturbed, here, 6)
    assert run_dataset(config, address).fresh == 2
    assert contents(there) == contents(here) == contents(undisturbed)


def test_copies_are_put_now_and_then_and_at_the_end(undisturbed, memory, monkeypatch):
    output = RemoteOutput("memory://runs/first", every=1000.0)
    copy_of(undisturbed, output.folder, 3)
    output.push()
    assert not memory.exists("/runs/first/manifest.json")
    output.every = 0.0
    output.push()
    assert memory.cat("/runs/first/predictions.jsonl").count(b"\n") == 3
    output.every = 1000.0
    copy_of(undisturbed, output.folder, 4)
    output.push(at_once=True)
    assert memory.cat("/runs/first/predictions.jsonl").count(b"\n") == 4
    shutil.rmtree(output.folder)
    RemoteOutput("memory://runs/first/").fetch()
    assert (output.folder / "predictions.jsonl").read_bytes().count(b"\n") == 4


def test_photos_and_files_behind_addresses(memory, place, tmp_path):
    for number, path in enumerate(PHOTOS[:2]):
        memory.pipe(f"/photos/{number}.jpg", path.read_bytes())
    memory.pipe("/photos/2.jpg", b"no photo")
    config = load_run_config(place / "run.yaml", {"data": "memory://photos"})
    assert config.data == "memory://photos"
    end = run_dataset(config, "memory://runs/second")
    assert (end.done, end.failed) == (3, 1)
    lines = memory.cat("/runs/second/predictions.jsonl").decode()
    assert lines.count("\n") == 3
    assert "memory://photos/2.jpg: not an image" in lines.replace("memory:///", "memory://")


def test_addresses_that_cannot_be_used(config, tmp_path):
    with pytest.raises(pf.ConfigError, match=r"nosuch://bucket/run: .*check the address"):
        run_dataset(config, "nosuch://bucket/run")
    (tmp_path / "file").write_text("")
    with pytest.raises(pf.ConfigError, match="check the address and the credentials"):
        open_output((tmp_path / "file" / "run").as_uri()).push(at_once=True)

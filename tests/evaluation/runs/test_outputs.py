"""Runs whose files go to an address: whole copies there, and what was written last counts."""

import json
import shutil
import subprocess
import sys

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


@pytest.mark.slow
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


def rewritten(folder, updated):
    """Make a manifest one that was written then."""
    values = json.loads((folder / "manifest.json").read_text())
    values["sessions"][-1]["updated"] = updated
    (folder / "manifest.json").write_text(json.dumps(values))


def test_what_was_written_last_counts(undisturbed, tmp_path):
    there = tmp_path / "bucket" / "run"
    output = open_output(there.as_uri())
    for here_at, there_at, expected in (("2031", "2030", 2), ("2030", "2031", 6), ("2030", "2030", 2)):
        copy_of(undisturbed, output.folder, 2)
        copy_of(undisturbed, there, 6)
        rewritten(output.folder, here_at)
        rewritten(there, there_at)
        output.fetch()
        assert (output.folder / "predictions.jsonl").read_bytes().count(b"\n") == expected


@pytest.mark.parametrize("gone", ["manifest.json", "predictions.jsonl"])
def test_half_a_copy_is_made_whole(undisturbed, tmp_path, gone):
    there = tmp_path / "bucket" / "run"
    output = open_output(there.as_uri())
    copy_of(undisturbed, there, 6)
    copy_of(undisturbed, output.folder, 6)
    (output.folder / gone).unlink()
    if gone == "predictions.jsonl":
        rewritten(output.folder, "2001")
    output.fetch()
    assert (output.folder / "predictions.jsonl").read_bytes().count(b"\n") == 6
    assert (output.folder / "manifest.json").exists()
    assert {path.name for path in output.folder.iterdir()} == {
        "predictions.jsonl",
        "manifest.json",
        "run.lock",
    }


def test_what_others_have_put_to_an_address_is_not_replaced(undisturbed, config, place, tmp_path):
    there = tmp_path / "bucket" / "run"
    output = open_output(there.as_uri())
    copy_of(undisturbed, output.folder, 6)
    there.mkdir(parents=True)
    (there / "predictions.jsonl").write_text('{"id": 1, "caption": "mine"}\n')
    for known in (True, False):  # Whether the cache has a run of this address or not.
        with pytest.raises(pf.ConfigError, match=r"bucket/run: has predictions but no manifest\.json"):
            run_dataset(config, there.as_uri())
        if known:
            shutil.rmtree(output.folder)
    assert (there / "predictions.jsonl").read_text() == '{"id": 1, "caption": "mine"}\n'
    # Another run of the same address, by another machine, that is older than what the cache has.
    copy_of(undisturbed, there, 6)
    copy_of(undisturbed, output.folder, 6)
    rewritten(there, "2001")
    values = json.loads((there / "manifest.json").read_text())
    values["recipe"]["steps"] = 99
    (there / "manifest.json").write_text(json.dumps(values))
    before = {path.name: path.read_bytes() for path in there.iterdir()}
    with pytest.raises(pf.ConfigError, match=r"recipe\.steps 99, not 5"):
        run_dataset(config, there.as_uri())
    assert {path.name: path.read_bytes() for path in there.iterdir()} == before


def test_files_are_not_replaced_under_a_run(undisturbed, tmp_path):
    there = tmp_path / "bucket" / "run"
    output = open_output(there.as_uri())
    copy_of(undisturbed, there, 6)
    script = "import sys; from promptfuse.evaluation.runs.journal import Journal\nfrom pathlib import Path\n"
    script += "with Journal(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, output.folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(pf.ConfigError, match="in use by process"):
            output.fetch()
        assert not (output.folder / "manifest.json").exists()
        other.stdin.close()


@pytest.mark.slow
def test_a_retry_is_known_at_the_address_at_once(undisturbed, config, place, tmp_path, monkeypatch):
    there = tmp_path / "bucket" / "run"
    copy_of(undisturbed, there, 8)
    pushed = []
    real = RemoteOutput.push

    def push(output, **options):
        real(output, **options)
        pushed.append((there / "predictions.jsonl").read_text().count('"text": null'))

    monkeypatch.setattr(RemoteOutput, "push", push)
    run_dataset(config, there.as_uri(), retry_failed=True)
    assert (pushed[0], pushed[-1]) == (0, 2)


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_copy_that_fails_on_the_way_is_tried_again(config, undisturbed, monkeypatch):
    """Of three or more copies the second fails."""
    calls = []
    plain = RemoteOutput.push

    def push(self, *, at_once=False):
        calls.append(at_once)
        if len(calls) == 2:
            raise pf.ConfigError("503 come back later")
        plain(self, at_once=True)

    monkeypatch.setattr(RemoteOutput, "push", push)
    notices = []
    address = "memory://runs/tried"
    end = run_dataset(config, address, lambda progress: notices.append(progress.notice), every=0.0)
    assert (end.done, end.notice) == (8, "")
    assert "503 come back later (tried again)" in notices
    assert len(calls) > 3
    assert contents(open_output(address).folder) == contents(undisturbed)


def test_the_last_copy_has_to_be_made(config, monkeypatch):
    def push(self, *, at_once=False):
        if at_once and (self.folder / "predictions.jsonl").exists():
            raise pf.ConfigError("the bucket is gone")

    monkeypatch.setattr(RemoteOutput, "push", push)
    with pytest.raises(pf.ConfigError, match="the bucket is gone"):
        run_dataset(config, "memory://runs/gone")

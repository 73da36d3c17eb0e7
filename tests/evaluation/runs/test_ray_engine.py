"""The same lines from workers on Ray, also when workers are killed."""

import os
import signal
import sys
from pathlib import Path

import pytest

import promptfuse as pf
from promptfuse.evaluation.recipes import load_recipe
from promptfuse.evaluation.runs import load_run_config, read_manifest, run_dataset
from promptfuse.evaluation.runs.config import EngineSettings
from promptfuse.evaluation.runs.ray_engine import RayEngine
from tests.evaluation.runs.conftest import QUICK, contents, write_config, write_photos

pytest.importorskip("ray.data")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")


def workers():
    """The processes of this process's Ray workers that have a set of models each."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents[int(folder.name)] = parent
        if title.startswith("ray::") and "GroupWorker" in title:
            found.append(int(folder.name))

    def ours(process):
        while process > 1 and process != os.getpid():
            process = parents.get(process, 0)
        return process == os.getpid()

    return [process for process in found if ours(process)]


@pytest.mark.slow
def test_a_long_path_for_temporary_files_is_no_obstacle(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = tmp_path / ("a-folder-of-a-job-on-a-cluster" * 3)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    write_photos(tmp_path / "photos", 2)
    changes = {"engine.kind": "ray", "engine.workers": 1, "engine.cpus_per_worker": 0.5}
    config = load_run_config(write_config(tmp_path / "run.yaml"), changes)
    before = set(Path("/tmp").glob("ray-*"))
    assert run_dataset(config, tmp_path / "run").done == 2
    assert set(Path("/tmp").glob("ray-*")) == before
    # A folder that was asked for is not replaced by another one.
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(
        pf.ConfigError, match=r"bytes and may have \d+; set RAY_TMPDIR to a folder with a short"
    ):
        run_dataset(config, tmp_path / "other")
    monkeypatch.setattr("promptfuse.evaluation.runs.ray_engine.SHORT_FOLDERS", (str(tmp_path / "gone"),))
    monkeypatch.delenv("RAY_TMPDIR")
    with pytest.raises(pf.ConfigError, match="set RAY_TMPDIR"):
        run_dataset(config, tmp_path / "third")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="workers are found through /proc")
def test_two_workers_give_the_local_lines_though_both_are_killed(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_photos(tmp_path / "photos", 14, broken=(3, 9))
    write_config(tmp_path / "run.yaml", in_flight=2)
    run_dataset(load_run_config(tmp_path / "run.yaml"), tmp_path / "local")
    killed = []

    def kill(progress):
        if (progress.fresh == 1 and not killed) or (progress.fresh >= 5 and len(killed) == 1):
            victim = next(process for process in workers() if process not in killed)
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    changes = {"engine.kind": "ray", "engine.workers": 2, "engine.cpus_per_worker": 0.5}
    end = run_dataset(load_run_config(tmp_path / "run.yaml", changes), tmp_path / "ray", kill)
    assert len(killed) == 2
    assert (end.done, end.failed, end.fresh) == (14, 2, 14)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    mine, other = (read_manifest(tmp_path / name) for name in ("ray", "local"))
    assert (mine.models, mine.data, mine.threads) == (other.models, other.data, other.threads)
    (session,) = mine.sessions
    assert session.engine["kind"] == "ray"
    assert session.photos == 14
    assert session.peak_memory_bytes > 10**8
    assert session.work_seconds > 0
    assert workers() == []


def test_what_ray_cannot_do(monkeypatch):
    recipe = load_recipe(QUICK)
    with pytest.raises(pf.ConfigError, match=r"device cuda: .*set engine.gpus_per_worker"):
        RayEngine(recipe, "cuda", 1, EngineSettings(kind="ray", workers=2))
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(pf.ConfigError, match=r"not installed; pip install 'promptfuse\[ray\]'"):
        RayEngine(recipe, "cpu", 1, EngineSettings(kind="ray", workers=2))


@pytest.mark.slow
def test_workers_that_this_machine_cannot_have_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_photos(tmp_path / "photos", 1)
    write_config(tmp_path / "run.yaml", engine={"kind": "ray", "workers": 2, "gpus_per_worker": 50})
    with pytest.raises(pf.ConfigError, match=r"a worker reserves 50 GPUs, this machine has"):
        run_dataset(load_run_config(tmp_path / "run.yaml"), tmp_path / "run")

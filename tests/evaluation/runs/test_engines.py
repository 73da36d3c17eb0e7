"""A run on several processes of this machine: the same lines, also when one is killed."""

import os
import signal

import pytest

import promptfuse as pf
from promptfuse.evaluation.recipes import load_recipe
from promptfuse.evaluation.runs import load_run_config, read_manifest, run_dataset
from promptfuse.evaluation.runs.engines import MOST_KILLS, ProcessEngine
from promptfuse.evaluation.runs.groups import make_groups
from tests.evaluation.runs.conftest import QUICK, contents, write_config, write_photos
from tests.worker_processes import needs_proc, workers_of

TWO = {"engine.workers": 2}


@pytest.mark.slow
@needs_proc
def test_two_workers_give_the_lines_of_one_process_though_one_is_killed(tmp_path):
    write_photos(tmp_path / "photos", 14, broken=(3, 9))
    write_config(tmp_path / "run.yaml", in_flight=2)
    run_dataset(load_run_config(tmp_path / "run.yaml"), tmp_path / "one")
    killed, seen = [], set()

    def kill(progress):
        seen.update(workers_of(os.getpid()))
        if progress.fresh >= 5 and not killed:
            killed.append(workers_of(os.getpid())[0])
            os.kill(killed[0], signal.SIGKILL)

    end = run_dataset(load_run_config(tmp_path / "run.yaml", TWO), tmp_path / "two", kill)
    assert len(killed) == 1
    assert len(seen) > 2  # They were started again.
    assert (end.done, end.failed, end.fresh) == (14, 2, 14)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    mine, other = (read_manifest(tmp_path / name) for name in ("two", "one"))
    assert (mine.models, mine.data, mine.threads) == (other.models, other.data, other.threads)
    (session,) = mine.sessions
    assert (session.engine["kind"], session.engine["workers"], session.photos) == ("local", 2, 14)
    assert session.peak_memory_bytes > 10**8
    assert session.work_seconds > 0
    assert workers_of(os.getpid()) == []


@pytest.mark.slow
@needs_proc
def test_workers_that_are_always_killed_are_given_up(tmp_path, monkeypatch):
    write_photos(tmp_path / "photos", 4)
    groups = make_groups(load_run_config(write_config(tmp_path / "run.yaml")).read().photos, 2)
    engine = ProcessEngine(load_recipe(QUICK), "cpu", 1, 2)
    engine.load()
    begun = []

    def begin(*args):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("promptfuse.evaluation.runs.engines.GroupWorker", begin)
    inner = ProcessEngine._describe
    monkeypatch.setattr(ProcessEngine, "_describe", lambda *args: begun.append(1) or inner(*args))
    with pytest.raises(pf.ConfigError, match="give fewer workers and run the same command to resume"):
        engine.run(groups, [].append, [].append)
    assert len(begun) == MOST_KILLS


@pytest.mark.slow
def test_what_a_worker_ends_with_ends_the_run(tmp_path):
    write_photos(tmp_path / "photos", 4)
    groups = make_groups(load_run_config(write_config(tmp_path / "run.yaml")).read().photos, 2)
    engine = ProcessEngine(load_recipe(QUICK), "cpu", 1, 2)
    engine.models = {"lm": {"name": "mini-lm", "fingerprint": "0"}}
    with pytest.raises(pf.ModelError, match="the worker has other files than the process that started"):
        engine.run(groups, [].append, [].append)

"""Lines on disk: torn, doubled, locked, on a full disk."""

import subprocess
import sys

import pytest

import promptfuse as pf
from promptfuse.evaluation.predictions import Prediction, read_predictions
from promptfuse.evaluation.runs.journal import Journal


def prediction(number, **values):
    return Prediction(f"photo-{number}", f"photos/{number}.jpg", **{"text": "Ein Café 🙂", **values})


def test_lines_are_there_at_once_and_ids_only_once(tmp_path):
    with Journal(tmp_path / "run") as journal:
        for number in (1, 2, 1):
            journal.append(prediction(number, error=None))
        found = read_predictions(tmp_path / "run" / "predictions.jsonl")
        assert found == [prediction(1), prediction(2)]
        assert journal.done == {"photo-1": False, "photo-2": False}
    with Journal(tmp_path / "run") as journal:
        journal.append(prediction(2))
        journal.append(prediction(3, text=None, error="no such file"))
        assert journal.failed == 1
    assert [line.id for line in read_predictions(journal.path)] == ["photo-1", "photo-2", "photo-3"]


@pytest.mark.parametrize("kept", [1, 40, -2])
def test_a_line_cut_off_anywhere_counts_as_not_done(tmp_path, kept):
    with Journal(tmp_path) as journal:
        journal.append(prediction(1))
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + prediction(2).to_line().encode()[:kept])
    with Journal(tmp_path) as journal:
        assert set(journal.done) == {"photo-1"}
        assert journal.path.read_bytes() == whole
        journal.append(prediction(2))
    assert read_predictions(journal.path) == [prediction(1), prediction(2)]


def test_a_line_that_lacks_its_end_alone_is_kept(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_bytes((prediction(1).to_line() + prediction(2).to_line()).encode()[:-1])
    assert read_predictions(path) == [prediction(1), prediction(2)]
    with Journal(tmp_path) as journal:
        assert set(journal.done) == {"photo-1", "photo-2"}
        journal.append(prediction(3))
    assert read_predictions(path) == [prediction(1), prediction(2), prediction(3)]


def test_a_torn_line_longer_than_a_block_alone_in_the_file(tmp_path):
    (tmp_path / "predictions.jsonl").write_bytes(b"x" * 200_000)
    with Journal(tmp_path) as journal:
        assert journal.done == {}
        assert journal.path.stat().st_size == 0


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("no JSON\n", "line 2 is not a prediction; remove the line"),
        ('{"text": "without id"}\n', "line 2 is not a prediction"),
        ('{"id": "1", "image": "1.jpg", "text": 5}\n', "line 2 is not a prediction"),
        ('{"id": "1", "image": "1.jpg", "terms": null}\n', "line 2 is not a prediction"),
        ('{"id": "1", "image": "1.jpg", "terms": {"image": "low"}}\n', "line 2 is not a prediction"),
        ('{"id": "1", "image": "1.jpg", "text": "half a \\ud83d"}\n', "line 2 is not a prediction"),
        (prediction(1).to_line(), "line 2 is the second of photo 'photo-1'; remove one"),
    ],
)
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path, line, problem):
    path = tmp_path / "predictions.jsonl"
    path.write_text(prediction(1).to_line() + line, encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(pf.ConfigError, match=problem), Journal(tmp_path):
        pass
    assert path.read_bytes() == before
    path.write_text(prediction(1).to_line(), encoding="utf-8")
    with Journal(tmp_path) as journal:  # And the lock was let go of.
        assert set(journal.done) == {"photo-1"}


def test_one_process_at_a_time(tmp_path):
    code = (
        "import sys; from pathlib import Path; from promptfuse.evaluation.runs.journal import Journal\n"
        "with Journal(Path(sys.argv[1])): print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(pf.ConfigError, match=f"in use by process {other.pid} on "), Journal(tmp_path):
            pass
        other.kill()
        other.wait()
        with Journal(tmp_path) as journal:  # The lock goes with the process.
            assert journal.done == {}


def test_a_full_disk_leaves_whole_lines(tmp_path):
    resource = pytest.importorskip("resource")
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from promptfuse.evaluation.predictions import Prediction\n"
        "from promptfuse.evaluation.runs.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with Journal(Path(sys.argv[1])) as journal:\n"
        "    for number in range(9): journal.append(Prediction(str(number), 'x' * 50, text='y' * 50))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert "File too large" in done.stderr
    del resource
    text = (tmp_path / "predictions.jsonl").read_bytes()
    assert text.endswith(b"\n")
    found = read_predictions(tmp_path / "predictions.jsonl")
    assert 1 < len(found) < 9
    with Journal(tmp_path) as journal:
        assert len(journal.done) == len(found)


def test_failed_ones_can_be_forgotten(tmp_path):
    with Journal(tmp_path) as journal:
        journal.append(prediction(1))
        journal.append(prediction(2, text=None, error="no such file"))
        journal.append(prediction(3))
        assert journal.failed == 1
        journal.forget_failed()
        assert journal.done == {"photo-1": False, "photo-3": False}
        assert journal.failed == 0
        journal.append(prediction(2))
        journal.append(prediction(4, text=None, error="it is dark"))
    with Journal(tmp_path) as journal:
        assert journal.failed == 1
        journal.forget_failed()
    assert [line.id for line in read_predictions(journal.path)] == ["photo-1", "photo-3", "photo-2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", "run.lock"]


def test_a_place_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(pf.ConfigError, match=r"run folder .*file/run: Not a directory; give a folder"):
        Journal(tmp_path / "file" / "run").__enter__()

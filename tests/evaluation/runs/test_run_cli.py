"""``promptfuse run`` as it is typed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from promptfuse.cli import run as run_cli
from tests.evaluation.runs.conftest import contents, write_config, write_photos


@pytest.mark.slow
def test_a_run_and_the_same_command_again(promptfuse, place, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(run_cli, "EVERY", 0.0)
    command = ("run", place / "run.yaml", "--out", tmp_path / "run")
    code, out, err = promptfuse(*command)
    assert code == 0
    assert out.startswith(f"{tmp_path / 'run'}: 6 captions, 2 photos failed, ")
    assert out.endswith(" photos a minute\n")
    *_, last, warning = err.splitlines()
    assert len(err.splitlines()) == 9
    assert last.startswith(f"{tmp_path / 'run'}: 8/8, ")
    assert "2 failed; " in last
    assert warning.startswith("warning: 2 of 8 photos failed, the first: ")
    assert contents(tmp_path / "run") == contents(undisturbed)
    code, out, err = promptfuse(*command)
    assert (code, err) == (0, warning + "\n")
    assert out == f"{tmp_path / 'run'}: 6 captions, 2 photos failed, nothing left to do\n"
    code, out, err = promptfuse(*command, "--json")
    found = json.loads(out)
    assert (found["photos"], found["captions"], found["failed"], found["fresh"]) == (8, 6, 2, 0)
    code, out, err = promptfuse(*command, "--in-flight", 2)
    assert (code, out) == (2, "")
    assert "contains a run with in_flight 3, not 2" in err


def test_options_replace_what_the_file_says(promptfuse, place):
    code, out, err = promptfuse(
        "run", place / "run.yaml", "--print-config", "--limit", 5, "--in-flight", 2, "--engine", "ray",
        "--workers", 3, "--set", "recipe.image_weight=7", "--set", "sentiment=positive",
    )  # fmt: skip
    assert (code, err) == (0, "")
    values = yaml.safe_load(out)
    assert (values["limit"], values["in_flight"], values["engine"]["kind"]) == (5, 2, "ray")
    assert (values["engine"]["workers"], values["recipe"]["image_weight"]) == (3, 7)
    assert values["recipe"]["sentiment"] == "positive"


def test_validate_says_what_is_there(promptfuse, place):
    code, out, err = promptfuse("run", place / "run.yaml", "--validate")
    assert (code, err) == (0, "")
    assert "valid; 8 photos; models: lm (mini-lm, embedded), image_text (mini-clip, embedded)" in out
    code, out, err = promptfuse("run", place / "run.yaml", "--validate", "--json")
    found = json.loads(out)
    assert (found["photos"], found["missing"], found["models"]["lm"]["name"]) == (8, [], "mini-lm")


def rejected_data(folder):
    images = [{"id": number, "file_name": f"{number:02d}.jpg"} for number in range(2)]
    annotations = [
        {"image_id": number, "caption": "A dog.", "is_rejected": bool(number), "is_precanned": False}
        for number in range(2)
    ]
    (folder / "vizwiz.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return write_config(folder / "vizwiz.yaml", data="vizwiz.json", images="photos")


def test_what_is_odd_in_the_data_is_told(promptfuse, tmp_path):
    write_photos(tmp_path / "photos", 2)
    config = rejected_data(tmp_path)
    said = "warning: 1 caption is marked as rejected (is_rejected 1) and left out"
    code, _, err = promptfuse("run", config, "--validate")
    assert (code, err.startswith(said)) == (0, True)
    code, out, _ = promptfuse("run", config, "--validate", "--json")
    assert json.loads(out)["warnings"] == [said.removeprefix("warning: ") + "; --keep-rejected keeps them"]
    code, _, err = promptfuse("run", config, "--out", tmp_path / "out")
    assert (code, err.startswith(said)) == (0, True)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["keep_rejected"] is False
    # It changes no caption, so that a run that is there goes on.
    code, _, err = promptfuse("run", config, "--out", tmp_path / "out", "--keep-rejected")
    assert (code, "1 caption is marked as rejected (is_rejected 1) and kept" in err) == (0, True)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["keep_rejected"] is True


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ((), "--out is missing; give a run folder"),
        (("--out", "run", "--set", "recipe"), "--set 'recipe' is not KEY=VALUE"),
        (("--out", "run", "--set", "recipe.stepz=3"), "no field 'stepz'; did you mean 'steps'"),
        (("--out", "run", "--limit", "x"), "'x' is not a whole number"),
        (("--out", "run", "--workers", "0"), "engine.workers"),
        (("--out", "run", "--set", "data=nowhere"), "nowhere"),
    ],
)
def test_wrong_commands_are_one_line_and_leave_nothing(
    promptfuse, place, options, problem, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    code, out, err = promptfuse("run", place / "run.yaml", *options)
    assert (code, out) == (2, "")
    assert err.startswith("promptfuse: ")
    assert err.count("\n") == 1
    assert problem in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_interrupt_says_how_to_go_on(slow, slow_undisturbed, tmp_path, promptfuse):
    command = [sys.executable, "-m", "promptfuse", "run", slow, "--out", tmp_path / "run"]
    lines = tmp_path / "run" / "predictions.jsonl"
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A job in the background of a shell, as the tests may be, hands on that interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        while process.poll() is None and not (lines.exists() and lines.stat().st_size):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "promptfuse: interrupted, " in err
    assert f" of 6 photos done; rerun the same command to resume {tmp_path / 'run'}" in err
    assert "Traceback" not in err
    assert 1 <= len(contents(tmp_path / "run")) < 6
    assert promptfuse("run", slow, "--out", tmp_path / "run")[0] == 0
    assert contents(tmp_path / "run") == contents(slow_undisturbed)


@pytest.mark.slow
def test_a_terminal_gets_a_bar(place, tmp_path, undisturbed):
    import pty

    write_config(tmp_path / "run.yaml", data=str(place / "photos"), limit=3)
    command = [
        sys.executable,
        "-m",
        "promptfuse",
        "run",
        tmp_path / "run.yaml",
        "--out",
        tmp_path / "run",
    ]
    main, terminal = pty.openpty()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=terminal, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(main, 1 << 16)
            except OSError:  # All who had the terminal are gone.
                break
            if not part:
                break
            shown += part
    os.close(main)
    assert process.returncode == 0
    text = shown.decode("utf-8", "replace")
    assert "3/3" in text
    assert "a minute" in text
    assert "1 failed" in text
    # Whichever came last: on a quick machine the bar is drawn once.
    captions = [contents(undisturbed)[photo]["text"] for photo in ("00.jpg", "02.jpg")]
    assert any(" ".join(caption.split()[:2]) in text for caption in captions)


def test_validate_refuses_what_a_run_would(place, tmp_path, promptfuse):
    write_config(tmp_path / "run.yaml", data=str(place / "photos"),
                 recipe={"kind": "samples", "by": "image", "sentiment": "positive"})  # fmt: skip
    code, _, err = promptfuse("run", tmp_path / "run.yaml", "--validate")
    assert code == 2
    assert "write by: objective" in err


@pytest.mark.slow
def test_failures_are_told_with_the_first_reason(place, tmp_path, promptfuse):
    for again in (False, True):
        code, out, err = promptfuse("run", place / "run.yaml", "--out", tmp_path / "run")
        assert code == 0
        assert "6 captions, 2 photos failed" in out
        assert "2 of 8 photos failed, the first: " in err, again
        assert "01.jpg" in err or "06.jpg" in err
        assert "--retry-failed" in err


def test_a_run_without_a_caption_is_no_success(tmp_path, promptfuse):
    (tmp_path / "photos").mkdir()
    (tmp_path / "d.jsonl").write_text('{"image": "a.jpg"}\n{"image": "b.jpg"}\n')
    write_config(tmp_path / "run.yaml", data="d.jsonl", images="photos")
    assert promptfuse("run", tmp_path / "run.yaml", "--validate")[0] == 2
    for _ in range(2):
        code, out, err = promptfuse("run", tmp_path / "run.yaml", "--out", tmp_path / "run", "--json")
        assert code == 2
        assert json.loads(out)["captions"] == 0
        assert "2 of 2 photos failed, the first: " in err


def test_an_empty_folder_name_is_not_the_working_folder(place, tmp_path, promptfuse, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = promptfuse("run", place / "run.yaml", "--out", "")
    assert code == 2
    assert "--out is empty" in err
    assert not list(tmp_path.iterdir())

"""The run folder of ``promptfuse optimize``: resuming, and what it leaves alone."""

from __future__ import annotations

import json

import pytest

from promptfuse.config import load_config
from tests.refusals import refused


def test_a_run_goes_on_from_its_folder(promptfuse, config, tmp_path):
    whole = json.loads(promptfuse("optimize", config, "--json", "--out", tmp_path / "whole")[1])
    folder = tmp_path / "cut"
    search = load_config(config, {"run_dir": str(folder)}).search()
    for _ in range(2):
        search.step()
    done = (folder / "history.jsonl").read_text().splitlines()
    page = tmp_path / "page.html"
    code, out, err = promptfuse("optimize", config, "--json", "--out", folder, "--trace", page)
    assert (code, err) == (0, "")
    row = json.loads(out)
    for key in ("text", "value", "terms", "exact_evaluations", "config"):
        assert row[key] == whole[key]
    lines = (folder / "history.jsonl").read_text().splitlines()
    assert lines[:2] == done
    assert len(lines) == len((tmp_path / "whole" / "history.jsonl").read_text().splitlines())
    assert f"step {len(lines)}</text>" in page.read_text(encoding="utf-8")
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "history.jsonl", "result.json", "state.json"
    }  # fmt: skip
    # Once more: nothing is left to do, and the result is the same.
    again = json.loads(promptfuse("optimize", config, "--json", "--out", folder)[1])
    assert again == row
    assert (folder / "history.jsonl").read_text().splitlines() == lines
    assert json.loads((folder / "result.json").read_text())["text"] == row["text"]
    # And its own configuration leads to the same folder.
    assert json.loads(promptfuse("optimize", folder / "config.yaml", "--json")[1])["text"] == row["text"]


def test_a_folder_with_another_run_is_refused(promptfuse, config, tmp_path):
    folder = tmp_path / "run"
    assert promptfuse("optimize", config, "--out", folder, "--steps", 1)[0] == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limit = ("--set", "constraints.max_words=7", "--steps", 1)
    refused(promptfuse("optimize", config, "--out", folder, *limit), "constraints.max_words None, not 7")
    refused(
        promptfuse(
            "optimize", config, "--out", folder, "--steps", 1, "--set", "terms.sentiment.label=negative"
        ),
        "terms.sentiment.label 'positive', not 'negative'",
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    # How many rows go through a model at once does not matter.
    assert promptfuse("optimize", config, "--out", folder, "--steps", 1, "--set", "batch_size=2")[0] == 0


def test_settings_are_free_by_their_whole_place(promptfuse, config, tmp_path):
    # Terms and models may be called as settings are.
    text = config.read_text().replace("fluency:", "device:").replace("lm:", "batch_size:")
    config.write_text(text.replace("model: lm", "model: batch_size") + "weights: {device: 2}\n")
    folder = tmp_path / "run"
    assert promptfuse("optimize", config, "--out", folder, "--steps", 1)[0] == 0
    run = ("optimize", config, "--out", folder, "--steps", 1, "--set")
    refused(promptfuse(*run, "weights.device=3"), "weights.device 2, not 3")
    assert promptfuse(*run, "models.batch_size.device=cpu")[0] == 0


def test_a_run_that_is_done_may_get_more_steps(promptfuse, config, tmp_path):
    whole = json.loads(promptfuse("optimize", config, "--json", "--out", tmp_path / "whole")[1])
    folder = tmp_path / "run"
    assert promptfuse("optimize", config, "--out", folder, "--steps", 2)[0] == 0
    assert len((folder / "history.jsonl").read_text().splitlines()) == 2
    longer = json.loads(promptfuse("optimize", config, "--json", "--out", folder)[1])
    for key in ("text", "value", "exact_evaluations", "config"):
        assert longer[key] == whole[key]
    assert (folder / "config.yaml").read_text().replace("/run\n", "/whole\n") == (
        tmp_path / "whole" / "config.yaml"
    ).read_text()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    refused(
        promptfuse("optimize", config, "--out", folder, "--steps", 1),
        str(folder),
        "stopping.steps 5",
        "taken",
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "files",
    [
        {"history.jsonl": '{"epoch": 1}\n'},
        {"result.json": '{"accuracy": 0.9}'},
        {"result.json": "mine"},
        {"state.json": "{}"},
        {"config.yaml": "learning_rate: 0.1\n"},
    ],
    ids=lambda files: "-".join(files),
)
def test_a_folder_with_somebody_elses_files_is_left_as_it_is(promptfuse, config, tmp_path, files):
    folder = tmp_path / "run"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    refused(promptfuse("optimize", config, "--out", folder), str(folder))
    assert {path.name: path.read_text() for path in folder.iterdir()} == files


def test_a_configuration_with_comments_is_not_written_over(promptfuse, config, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    mine = folder / "config.yaml"
    mine.write_text("# What I tried on Monday.\n" + load_config(config, {"run_dir": str(folder)}).to_yaml())
    before = mine.read_text()
    assert promptfuse("optimize", mine)[0] == 0
    assert mine.read_text() == before


def test_a_page_replaces_nothing_but_pages(promptfuse, config, tmp_path):
    page = tmp_path / "page.html"
    for text in ("<html>My thesis</html>", "promptfuse is mentioned"):
        page.write_text(text)
        refused(
            promptfuse("optimize", config, "--trace", page, "--steps", 1),
            str(page),
            "was not written by promptfuse",
        )
        assert page.read_text() == text
    refused(promptfuse("optimize", config, "--trace", config), "must end in .html")
    page.write_text("")
    for _ in range(2):
        assert promptfuse("optimize", config, "--trace", page, "--steps", 1)[0] == 0
        assert "</html>" in page.read_text()

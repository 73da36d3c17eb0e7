import json
import runpy
import sys
from pathlib import Path

import pytest

from promptfuse.cli import main as cli

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_demo_writes_one_page_with_every_caption(tmp_path, monkeypatch, capsys):
    page = tmp_path / "demo.html"
    photo = EXAMPLES / "photos" / "horses.jpg"
    monkeypatch.setattr(sys, "argv", ["demo.py", str(photo), "--out", str(page)])
    runpy.run_path(str(EXAMPLES / "demo.py"), run_name="__main__")
    out = capsys.readouterr().out
    html = page.read_text(encoding="utf-8")
    captions = [
        line.split(None, 1)[1].rsplit("  (", 1)[0] for line in out.splitlines() if line.startswith("  ")
    ]
    assert len(captions) == 3
    for caption in captions:
        assert f"<q>{caption}</q>" in html
    assert html.count("<details>") == 3


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_configs_run_from_anywhere(path, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.html"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["promptfuse", "optimize", str(path), "--json", "--trace", str(page)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert (stop.value.code, err) == (0, "")
    row = json.loads(out)
    assert row["complete"]
    # The search has made something of what it began with.
    steps = row["config"]["stopping"]
    assert row["exact_evaluations"] > 50, steps
    assert f"<q>{row['text']}</q>" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_photos_are_a_data_set(tmp_path, monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["promptfuse", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0, capsys.readouterr().err
        return capsys.readouterr().out

    config, out, page = EXAMPLES / "runs" / "photos.yaml", tmp_path / "run", tmp_path / "report.html"
    call("run", config, "--out", out, "--limit", 2, "--set", "recipe.steps=8")
    call("report", out, "--out", page)
    lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    assert len(texts) == 2
    assert all(text in page.read_text(encoding="utf-8") for text in texts)

"""The curve of a sentiment's weight: a run for each weight, and a row."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks import steering
from promptfuse.evaluation.runs import load_run_config

PHOTOS = sorted((Path(__file__).parents[2] / "examples" / "photos").glob("*.jpg"))[:2]


@pytest.mark.slow
def test_a_row_for_each_weight_and_a_run_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "quick.yaml"
    recipe.write_text(yaml.safe_dump({"kind": "search", "steps": 14, "beams": 2, "candidates": 6}))
    data = tmp_path / "data.jsonl"
    lines = [json.dumps({"image": str(photo), "captions": ["A brown dog runs."]}) for photo in PHOTOS]
    data.write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    arguments = ["--data", str(data), "--recipe", str(recipe), "--out", str(out), "--weights", "0", "5"]
    monkeypatch.setattr(sys, "argv", ["steering", *arguments, "--json"])
    steering.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [(row["sentiment"], row["weight"]) for row in rows] == [
        ("positive", 0), ("positive", 5), ("negative", 0), ("negative", 5)
    ]  # fmt: skip
    for plain, coloured in (rows[:2], rows[2:]):
        assert plain["photos"] == coloured["photos"] == 2
        assert plain["similarity_lost"] == 0
        assert coloured["share"] == 1
        assert coloured["similarity_lost"] == pytest.approx(1 - coloured["similarity"] / plain["similarity"])
        assert coloured["cider_d"] >= 0
    assert rows[0]["share"] == rows[2]["share"] == 0  # Plain captions are neutral.
    config = load_run_config(out / "negative-5.yaml")
    assert config.recipe["sentiment_weight"] == 5
    # A second call has nothing left to do, and says the same.
    steering.main()
    again = capsys.readouterr().out
    assert "plain: 2 photos, 0 failed, 0 now" in again
    assert [json.loads(line) for line in again.splitlines() if line.startswith("{")] == rows

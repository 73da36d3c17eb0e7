from __future__ import annotations

import dataclasses
import inspect
import io
import json
import re
import sys
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

import promptfuse as pf
from promptfuse.config import SearchConfig, load_config
from promptfuse.config.settings import SINGLE, STRATEGIES, ChainSettings
from promptfuse.config.terms import AnyTerm, ModelSettings
from promptfuse.search.methods.settings import Single
from tests.refusals import refused

CONFIG = """\
models:
  lm: {lm}
  tone: {{name: {tone}}}
terms:
  fluency: {{kind: Fluency, model: lm}}
  sentiment: {{kind: ClassProbability, model: tone, label: positive, weight: 1.5}}
method: {{kind: AutoDAN, candidates: 4}}
strategy: {{kind: BeamSearch, width: 2}}
constraints: {{round_trip: false}}
stopping: {{steps: 5, patience: 5}}
prefix: A brown
"""

Outcome = tuple[int, str, str]


@pytest.fixture
def config(checkpoint, tmp_path) -> Path:
    """A configuration of two tiny checkpoints."""
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(lm=checkpoint("gpt2"), tone=checkpoint("bert")))
    return path


def change(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))
    return path


# ------------------------------------------------------------------------------------------- running


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


# -------------------------------------------------------------------------------------------- bad input

BAD = [
    ("modles", "models:", "modles:", ("no field 'modles'", "did you mean 'models'?")),
    ("term's key", "weight: 1.5", "wieght: 1.5", ("terms.sentiment", "'wieght'", "'weight'?")),
    ("method's key", "candidates", "candidate", ("method", "'candidate'", "'candidates'?")),
    ("kind of term", "kind: Fluency", "kind: Fluent", ("terms.fluency", "'Fluent'", "'Fluency'?")),
    ("no kind", "kind: Fluency, ", "", ("terms.fluency", "'kind' is missing", "TargetContinuation")),
    ("kind of method", "kind: AutoDAN", "kind: autodan", ("method", "'autodan'", "'AutoDAN'?")),
    ("kind of strategy", "kind: BeamSearch", "kind: BeanSearch", ("strategy", "'BeamSearch'?")),
    ("number out of range", "candidates: 4", "candidates: 0", ("method: candidates: 0", "1 or more")),
    ("fraction", "steps: 5", "steps: 1.5", ("stopping.steps", "whole number", "1.5")),
    ("text for a number", "weight: 1.5", "weight: heavy", ("terms.sentiment.weight", "'heavy'")),
    ("not a number", "weight: 1.5", "weight: .nan", ("terms.sentiment.weight", "finite")),
    ("weight of nothing", "weight: 1.5", "weight: 0", ("terms.sentiment.weight", "another number than 0")),
    ("yes for a text", "label: positive", "label: yes", ("terms.sentiment.label", "True", "quotes")),
    ("unknown model", "model: tone", "model: tune", ("terms.sentiment.model", "'tune'", "'tone'?")),
    ("unknown label", "label: positive", "label: postive", ("terms.sentiment", "'postive'", "Positive")),
    ("wrong kind of model", "model: tone", "model: lm", ("terms.sentiment", "classifier", "causal")),
    ("key twice", "width: 2", "width: 2, width: 3", ("not valid YAML", "'width' occurs twice", "line 8")),
    ("broken YAML", "strategy: {", "strategy: {{", ("not valid YAML",)),
    ("a list", "{kind: AutoDAN, candidates: 4}", "[AutoDAN, Polish]", ("method", "found a list")),
    ("a text for a list", "round_trip: false", "banned: dog", ("constraints.banned", "list", "'dog'")),
    ("bad pattern", "round_trip: false", "banned_patterns: ['(']", ("constraints", "'('")),
    ("contradiction", "round_trip: false", "min_words: 3, max_words: 2", ("constraints", "min_words 3")),
    ("chain's steps", "{kind: AutoDAN, candidates: 4}",
     "{kind: Chain, methods: [AutoDAN, Polish], steps: [3]}", ("method", "1 numbers for 2 methods")),
    ("in a chain", "{kind: AutoDAN, candidates: 4}",
     "{kind: Chain, methods: [AutoDAN, {kind: GCG, topk: 3}]}", ("method.methods.1", "'topk'", "'top_k'?")),
    ("weights", "prefix: A brown", "weights: {sentimnt: 2}", ("weights", "'sentimnt'", "'sentiment'?")),
    ("weights' name", "prefix: A brown", "weights: atuo", ("weights", "'atuo'", "'auto'?")),
    ("scalarisation", "prefix: A brown", "scalarisation: sum", ("scalarisation", "weighted, chebyshev")),
    ("seed", "prefix: A brown", "seed: -1", ("seed", "-1")),
    ("device", "prefix: A brown", "device: abacus", ("abacus", "cpu")),
    ("dtype", "{name: ", "{dtype: float8, name: ", ("models.tone.dtype", "'float8'")),
    ("no such folder", "lm: /", "lm: ./no/", ("models.lm", "no such folder")),
    ("nothing proposes", "kind: Fluency, model: lm", "kind: TextSimilarity, model: tone, text: a",
     ("language model", "Fluency")),
    ("blank target", "kind: Fluency, model: lm", "kind: TargetContinuation, model: lm, target: ' '",
     ("terms.fluency.target", "empty")),
    ("missing photo", "kind: ClassProbability, model: tone, label: positive",
     "kind: ImageSimilarity, model: clip, image: gone.jpg", ("gone.jpg", "no such file")),
    ("code", "kind: ClassProbability, model: tone, label: positive",
     "kind: BlackBox, function: 'os:getcwd'", ("terms.sentiment", "--allow-code")),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_file_gives_one_line_and_no_files(promptfuse, config, checkpoint, tmp_path, old, new, words):
    if "clip" in new:
        change(config, "terms:", f"  clip: {checkpoint('clip')}\nterms:")
    change(config, old, new)
    arguments = ("--out", tmp_path / "run", "--trace", tmp_path / "page.html")
    # Whether it is only checked or to be run, the same is wrong with it.
    refused(promptfuse("optimize", config, "--validate"), "run.yaml", *words)
    refused(promptfuse("optimize", config, *arguments), "run.yaml", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_bad_options(promptfuse, config, tmp_path):
    refused(promptfuse("optimize"), "CONFIG.yaml")
    refused(promptfuse("optimize", tmp_path / "gone.yaml"), "gone.yaml", "no such file")
    refused(promptfuse("optimize", config, "--steps", "many"), "many", "whole number")
    refused(promptfuse("optimize", config, "--steps", 0), "stopping", "steps: 0")
    refused(promptfuse("optimize", config, "--set", "seed"), "KEY=VALUE")
    refused(promptfuse("optimize", config, "--set", "seed=[1"), "not a valid YAML value")
    refused(promptfuse("optimize", config, "--set", "prefix.x=1"), "prefix has no place 'x'")
    refused(promptfuse("optimize", config, "--set", "terms.fluency.wait=1"), "'wait'", "'weight'?")
    refused(promptfuse("optimize", config, "--trace", tmp_path), "regular file")
    refused(promptfuse("optimize", config, "--trace", tmp_path / "no" / "page.html"), "does not exist")
    refused(promptfuse("optimize", config, "--out", config), "is a file")
    change(
        config, "{kind: AutoDAN, candidates: 4}", "{kind: Chain, methods: [AutoDAN, Polish], steps: [3, 2]}"
    )
    refused(promptfuse("optimize", config, "--steps", 3), "chain", "method.steps")


def test_validate_says_what_it_found(promptfuse, config):
    code, out, err = promptfuse("optimize", config, "--validate")
    assert (code, err) == (0, "")
    assert "run.yaml: valid" in out
    row = json.loads(promptfuse("optimize", config, "--validate", "--json")[1])
    assert row["valid"] is True
    assert row["models"]["lm"]["kind"] == "causal-lm"
    assert row["models"]["tone"]["labels"] == ["Negative", "Positive"]


def test_validate_reads_what_texts_begin_with(promptfuse, config):
    for change_, words in (
        (
            "method={kind: GCG, init: x x x}",
            ("method.init", "'x x x' breaks the constraints", "no_repeated_word"),
        ),
        ("method={kind: Chain, methods: [{kind: GCG, init: a a}, Polish], steps: [1, 1]}", ("method.init",)),
        ('prefix="A\\nB"', ("prefix", "it has a line break")),
    ):
        refused(promptfuse("optimize", config, "--validate", "--set", change_), *words)


def test_validate_reads_no_weights(promptfuse, config, checkpoint, tmp_path):
    folder = tmp_path / "hollow"
    folder.mkdir()
    for path in checkpoint("gpt2").iterdir():
        (folder / path.name).write_bytes(b"" if path.suffix == ".safetensors" else path.read_bytes())
    change(config, f"lm: {checkpoint('gpt2')}", "lm: hollow")  # beside the file
    assert promptfuse("optimize", config, "--validate")[0] == 0
    refused(promptfuse("optimize", config), "models.lm", "cannot be loaded")
    (folder / "model.safetensors").unlink()
    refused(promptfuse("optimize", config, "--validate"), "models.lm", "no weights")


# ------------------------------------------------------------------------------------------ run folders


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
        refused(promptfuse("optimize", config, "--trace", page, "--steps", 1), str(page), "did not write it")
        assert page.read_text() == text
    refused(promptfuse("optimize", config, "--trace", config), "is written as .html")
    page.write_text("")
    for _ in range(2):
        assert promptfuse("optimize", config, "--trace", page, "--steps", 1)[0] == 0
        assert "</html>" in page.read_text()


# ------------------------------------------------------------------------------------------------- trace


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


# -------------------------------------------------------------------------------------------------- code


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
    sign = "; the text has not come to an end"
    code, out, err = promptfuse("optimize", config, "--steps", 1)
    assert (code, err) == (0, "")
    assert out.splitlines()[1].endswith(f"1 step{sign}")
    swaps = "method={kind: GCG, batch: 4, init: A dog}"
    code, out, _ = promptfuse("optimize", config, "--set", swaps, "--steps", 1)
    assert code == 0
    assert sign not in out


# ------------------------------------------------------------------------------------------ completeness


def test_every_method_and_strategy_can_be_written(config):
    for kind in get_args(Single):
        found = load_config(config, {"method": {"kind": kind.__name__}})
        assert found.method.build() == kind()
        assert {field.name for field in dataclasses.fields(kind)} < set(SINGLE[kind.__name__].model_fields)
    for strategy in (pf.BeamSearch(), pf.Greedy(), pf.UniformCost()):
        found = load_config(config, {"strategy": type(strategy).__name__})
        assert found.strategy.build() == strategy
    assert set(STRATEGIES) == {"BeamSearch", "Greedy", "UniformCost"}
    chain = {"kind": "Chain", "methods": ["AutoDAN", {"kind": "Polish", "candidates": 3}], "steps": [4, 2]}
    expected = pf.Chain(pf.AutoDAN(), pf.Polish(candidates=3), steps=(4, 2))
    assert load_config(config, {"method": chain}).method.build() == expected
    plain = load_config(config, {"constraints": {}, "stopping": {}})
    assert plain.constraints.build() == pf.Constraints()
    assert plain.stopping.build() == pf.Stopping()


def test_every_term_can_be_written_with_its_own_defaults():
    described = get_args(get_args(AnyTerm)[0])
    everything = {name for name in pf.__all__ if inspect.isclass(getattr(pf, name))}
    terms = {name for name in everything if issubclass(getattr(pf, name), pf.Term)} - {"Term"}
    assert {settings.term.__name__ for settings in described} == terms
    for settings in described:
        parameters = inspect.signature(settings.term).parameters
        assert set(settings.model_fields) == {*parameters, "kind"} - {"name"}
        for name, parameter in parameters.items():
            if name != "name" and parameter.default is not inspect.Parameter.empty:
                assert settings.model_fields[name].default == parameter.default, (settings, name)


def test_the_documentation_names_every_key():
    text = (Path(__file__).parents[2] / "docs" / "optimize.md").read_text(encoding="utf-8")
    models = [SearchConfig, *SINGLE.values(), *STRATEGIES.values(), *get_args(get_args(AnyTerm)[0])]
    models += [ModelSettings, ChainSettings]
    models += [SearchConfig.model_fields[name].annotation for name in ("constraints", "stopping")]
    for settings in models:
        for key in settings.model_fields:
            assert f"`{key}`" in text, (settings.__name__, key)
        kind = settings.model_fields.get("kind")
        assert kind is None or f"`{get_args(kind.annotation)[0]}`" in text

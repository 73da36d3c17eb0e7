"""What ``promptfuse optimize`` says to bad files and options, and what ``--validate`` looks at."""

from __future__ import annotations

import json

import pytest

from tests.cli.changes import change
from tests.refusals import refused

BAD = [
    ("modles", "models:", "modles:", ("no field 'modles'", "did you mean 'models'?")),
    ("term's key", "weight: 1.5", "wieght: 1.5", ("terms.sentiment", "'wieght'", "'weight'?")),
    ("method's key", "candidates", "candidate", ("method", "'candidate'", "'candidates'?")),
    ("kind of term", "kind: Fluency", "kind: Fluent", ("terms.fluency", "'Fluent'", "'Fluency'?")),
    ("no kind", "kind: Fluency, ", "", ("terms.fluency", "'kind' is missing", "TargetContinuation")),
    ("kind of method", "kind: AutoDAN", "kind: autodan", ("method", "'autodan'", "'AutoDAN'?")),
    ("kind of strategy", "kind: BeamSearch", "kind: BeanSearch", ("strategy", "'BeamSearch'?")),
    ("number out of range", "candidates: 4", "candidates: 0", ("method: candidates: must", "got 0")),
    ("fraction", "steps: 5", "steps: 1.5", ("stopping.steps", "whole number", "1.5")),
    ("text for a number", "weight: 1.5", "weight: heavy", ("terms.sentiment.weight", "'heavy'")),
    ("not a number", "weight: 1.5", "weight: .nan", ("terms.sentiment.weight", "finite")),
    ("weight of nothing", "weight: 1.5", "weight: 0", ("terms.sentiment.weight", "must not be 0")),
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
    refused(promptfuse("optimize", config, "--steps", 0), "stopping", "steps: must be at least 1, got 0")
    refused(promptfuse("optimize", config, "--set", "seed"), "KEY=VALUE")
    refused(promptfuse("optimize", config, "--set", "seed=[1"), "not a valid YAML value")
    refused(promptfuse("optimize", config, "--set", "prefix.x=1"), "prefix has no key 'x'")
    refused(promptfuse("optimize", config, "--set", "terms.fluency.wait=1"), "'wait'", "'weight'?")
    refused(promptfuse("optimize", config, "--trace", tmp_path), "not a regular file")
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
            ("method.init", "'x x x' violates the constraints", "no_repeated_word"),
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

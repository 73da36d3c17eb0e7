"""What the language model alone reads before every text: options, presets and configurations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import promptfuse as pf
from promptfuse.config import load_config
from promptfuse.evaluation.runs import load_run_config
from promptfuse.models import load_model, load_preset
from promptfuse.models.context import read_context
from tests.refusals import refused

EXAMPLES = Path(__file__).parent.parent / "examples"
CAT = str(EXAMPLES / "photos" / "cat.jpg")
QUICK = ["--steps", "4", "--beams", "2", "--candidates", "4", "--json"]
LINES = "Snow.\nSnow on ice.\n"


def fluency(text: str, context: str, exponent: float = 0.5) -> float:
    return pf.Fluency(load_model("mini-lm"), length_exponent=exponent, context=context).exact(text)


def test_files_are_lines_and_text_is_text(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    for raw in (b"Snow.\nSnow on ice.", b"Snow.\r\nSnow on ice.\r\n", b"\xef\xbb\xbfSnow.\nSnow on ice.\n\n"):
        path.write_bytes(raw)
        assert read_context(f"@{path}") == LINES
        assert read_context("@lines.txt", tmp_path) == LINES
    assert read_context("Snow.") == "Snow."
    assert read_context("@@user says:") == "@user says:"
    assert read_context("") == ""


@pytest.mark.slow
def test_caption_reads_text_or_file(promptfuse, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text(LINES)
    found = {}
    for given, context in ((None, ""), ("A caption:", "A caption:"), (f"@{path}", LINES)):
        code, out, err = promptfuse("caption", CAT, *QUICK, *(["--lm-prefix", given] if given else []))
        assert code == 0, err
        row = json.loads(out)
        assert row["terms"]["fluency"] == pytest.approx(fluency(row["text"], context), abs=1e-5)
        assert row["models"]["fluency"]["start"] == "<|endoftext|>"
        found[given] = row["text"]
    assert pf.caption(CAT, lm_prefix=LINES, steps=4, beams=2, candidates=4).text == found[f"@{path}"]
    (many,) = pf.caption_many([CAT], lm_prefix=LINES, steps=4, beams=2, candidates=4)
    assert many.text == found[f"@{path}"]
    assert len(set(found.values())) > 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("@no/such/file.txt", ("no/such/file.txt", "No such file")),
        ("@", ("'@'", "has no file name")),
        ("@.", ("'@.'", "has no file name")),
        ("@empty.txt", ("empty.txt", "has no text")),
        ("@latin.txt", ("latin.txt", "is not UTF-8 text")),
        ("dog " * 300, ("the context 'dog dog", "the model reads at most 128", "shorten it")),
    ],
)
def test_what_cannot_be_read_is_named(promptfuse, tmp_path: Path, monkeypatch, given, words) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text(" \n\n")
    Path("latin.txt").write_bytes("Schn\u00e9e".encode("latin-1"))
    refused(promptfuse("caption", CAT, CAT, *QUICK, "--lm-prefix", given), *words)


@pytest.mark.slow
def test_a_preset_has_it_from_a_file_beside_it(promptfuse, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "lines.txt").write_text(LINES)
    preset = folder / "preset.yaml"
    preset.write_text('base: mini\nlm_prefix: "@lines.txt"\n')
    (tmp_path / "based.yaml").write_text("base: presets/preset.yaml\nsteps: 5\n")
    monkeypatch.chdir("/")
    assert load_preset(str(preset)).lm_prefix == LINES
    assert load_preset(str(tmp_path / "based.yaml")).lm_prefix == LINES
    code, out, err = promptfuse("caption", CAT, *QUICK, "--models", str(preset))
    assert code == 0, err
    row = json.loads(out)
    assert row["terms"]["fluency"] == pytest.approx(fluency(row["text"], LINES), abs=1e-5)
    assert load_preset("mini").lm_prefix is None
    preset.write_text('base: mini\nlm_prefix: "@other.txt"\n')
    refused(promptfuse("caption", CAT, "--models", str(preset)), "other.txt", "No such file")


@pytest.mark.slow
def test_the_shipped_example(promptfuse) -> None:
    path = EXAMPLES / "presets" / "few_shot.yaml"
    preset = load_preset(str(path))
    assert preset.lm_prefix is not None
    assert preset.lm_prefix.count("\n") == 5
    settings = ["--models", str(path), "--lm", "mini-lm", "--weight", "image=3.5"]
    code, out, err = promptfuse("caption", CAT, *QUICK, *settings)
    assert code == 0, err
    row = json.loads(out)
    assert row["models"]["fluency"]["name"] == "mini-lm"
    known = fluency(row["text"], preset.lm_prefix, preset.length_exponent)
    assert row["terms"]["fluency"] == pytest.approx(known, abs=1e-5)


@pytest.mark.slow
def test_optimize_reads_it(promptfuse, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "lines.txt").write_text(LINES)
    config = tmp_path / "search.yaml"
    head = "models: {lm: mini-lm}\nstopping: {steps: 3}\nmethod: {kind: AutoDAN, candidates: 3}\n"
    term = "kind: Fluency, model: lm, length_exponent: 0.5"
    config.write_text(f'{head}terms:\n  own: {{{term}, context: "@lines.txt"}}\n')
    code, out, err = promptfuse("optimize", str(config), "--json")
    assert code == 0, err
    row = json.loads(out)
    assert row["terms"]["own"] == pytest.approx(fluency(row["text"], LINES), abs=1e-5)
    assert load_config(config).terms["own"].context == LINES
    # An option's path is relative to where the command is run, and a text may begin with @.
    for given, context in ((f"@{tmp_path / 'lines.txt'}", LINES), ("@@cat says:", "@cat says:")):
        config.write_text(f"{head}terms:\n  own: {{{term}}}\n")
        code, out, err = promptfuse("optimize", str(config), "--json", "--lm-prefix", given)
        assert code == 0, err
        row = json.loads(out)
        assert row["terms"]["own"] == pytest.approx(fluency(row["text"], context), abs=1e-5)
    config.write_text(f"{head}terms:\n  own: {{{term}, context: a, prefix: b}}\n")
    refused(promptfuse("optimize", str(config)), "only one of them can precede the text")
    config.write_text(f"{head}terms:\n  aim: {{kind: TargetContinuation, model: lm, target: ' dog'}}\n")
    refused(promptfuse("optimize", str(config), "--lm-prefix", "a"), "--lm-prefix", "Fluency")


@pytest.mark.slow
def test_a_run_reads_it(promptfuse, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lines.txt").write_text(LINES)
    Path("run.yaml").write_text(f"data: {EXAMPLES / 'photos'}\nlimit: 1\nlm_prefix: '@lines.txt'\n")
    settings = load_run_config(Path("run.yaml"))
    assert settings.make_recipe().preset().lm_prefix == LINES
    changes = ["--set", "recipe={kind: search, beams: 1, candidates: 2, steps: 3}"]
    code, _, err = promptfuse(
        "run", "run.yaml", "--out", "one", "--lm-prefix", "A caption:", "--lm", "mini-lm", *changes
    )
    assert code == 0, err
    (line,) = Path("one", "predictions.jsonl").read_text().splitlines()
    row = json.loads(line)
    text = row.get("caption") or row.get("text")
    assert row["terms"]["fluency"] == pytest.approx(fluency(text, "A caption:"), abs=1e-5)
    refused(promptfuse("run", "run.yaml", "--out", "two", "--lm-prefix", "@none.txt"), "none.txt")


@pytest.mark.slow
def test_glue_on_the_command_line(promptfuse) -> None:
    code, out, err = promptfuse("caption", CAT, *QUICK, "--prefix", "The")
    assert code == 0, err
    assert json.loads(out)["text"].startswith("The ")
    code, _, err = promptfuse("caption", CAT, *QUICK, "--prefix", "The", "--glue")
    assert code == 0, err

"""The files of ``docs/extending`` work from outside the package, through entry points alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ROOT / "docs" / "extending"
PHOTOS = ROOT / "examples" / "photos"
ENTRY_POINTS = """\
[promptfuse.methods]
SwapWords = extras.swap_words:SwapWords

[promptfuse.terms]
Undecided = extras.undecided:Undecided

[promptfuse.models]
calibrated-classifier = extras.calibrated:CalibratedClassifier

[promptfuse.datasets]
pipes = extras.pipes:PipesReader

[promptfuse.recipes]
best-label = extras.best_label:BestLabelRecipe
extras = extras

[promptfuse.metrics]
article = extras.article:Article
"""

Outside = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Outside:
    """Calls the command line where a package with the files is installed."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(FILES, site / "extras")
    (site / "extras" / "__init__.py").write_text("")
    info = site / "extras-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extras\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    path = os.pathsep.join([str(site), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "promptfuse", *map(str, arguments)],
            env=environment, cwd=site, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip

    return call


def test_every_file_is_short() -> None:
    files = sorted(FILES.glob("*.py"))
    assert len(files) >= 6
    for path in files:
        assert len(path.read_text().splitlines()) <= 40, path


def test_every_file_is_in_the_page() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for path in FILES.glob("*.py"):
        assert f"extending/{path.name}" in page
        assert path.read_text(encoding="utf-8").strip() in page, path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "names"),
    [
        (("optimize",), ("SwapWords", "Undecided")),
        (("run",), ("best-label", "vehicles", "pipes")),
        (("datasets", "check"), ("pipes",)),
        (("score",), ("article",)),
    ],
)
def test_help_lists_what_the_package_adds(outside: Outside, command, names) -> None:
    done = outside(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    choices = done.stdout.partition("\nChoices:\n")[2]
    for name in names:
        assert name in choices


@pytest.mark.slow
def test_a_method_and_a_term_work_by_name(outside: Outside, tmp_path: Path) -> None:
    config = tmp_path / "search.yaml"
    config.write_text(
        "models: {lm: mini-lm, tone: mini-tone}\n"
        "terms:\n  fluency: {kind: Fluency, model: lm}\n"
        "  doubt: {kind: Undecided, model: tone, weight: 0.5}\n"
        "method: {kind: SwapWords, init: the grass runs through a dog}\n"
        "stopping: {steps: 2}\n"
    )
    done = outside("optimize", config, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    row = json.loads(done.stdout)
    assert sorted(row["text"].split()) == sorted("the grass runs through a dog".split())
    assert row["text"] != "the grass runs through a dog"
    assert row["weights"] == {"fluency": 1.0, "doubt": 0.5}
    assert -0.7 < row["terms"]["doubt"] < 0
    assert row["config"]["method"] == {"name": "SwapWords", "init": "the grass runs through a dog"}
    config.write_text(config.read_text().replace("weight: 0.5", "wait: 0.5"))
    done = outside("optimize", config, "--validate")
    assert done.returncode == 2
    assert "terms.doubt: no field 'wait'; did you mean 'weight'?" in done.stderr


@pytest.mark.slow
def test_a_method_keeps_the_prefix(outside: Outside, tmp_path: Path) -> None:
    config = tmp_path / "search.yaml"
    config.write_text(
        "models: {lm: mini-lm}\nterms: {fluency: {kind: Fluency, model: lm}}\nprefix: dog the\n"
        "method: {kind: SwapWords, init: grass a through runs}\nstopping: {steps: 2}\n"
    )
    done = outside("optimize", config, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    text = json.loads(done.stdout)["text"]
    assert text.startswith("dog the ")
    assert text != "dog the grass a through runs"
    assert sorted(text.split()) == sorted("dog the grass a through runs".split())


@pytest.mark.slow
def test_a_kind_of_model_is_found_by_its_configuration(outside: Outside, tmp_path: Path) -> None:
    tone = ROOT / "src" / "promptfuse" / "models" / "mini" / "tone"
    losses = []
    for temperature in (None, 1.0, 8.0):
        folder = tmp_path / f"tone-{temperature}"
        shutil.copytree(tone, folder)
        values = json.loads((folder / "config.json").read_text())
        if temperature is not None:
            values["calibration_temperature"] = temperature
        (folder / "config.json").write_text(json.dumps(values))
        config = tmp_path / "search.yaml"
        config.write_text(
            f"models: {{lm: mini-lm, tone: {folder}}}\n"
            "terms:\n  fluency: {kind: Fluency, model: lm}\n"
            "  tone: {kind: ClassProbability, model: tone, label: positive}\n"
            "method: {kind: Polish, init: a lovely day, candidates: 4}\nstopping: {steps: 1}\n"
        )
        done = outside("optimize", config, "--validate", "--json")
        kind = json.loads(done.stdout)["models"]["tone"]["kind"]
        assert kind == ("classifier" if temperature is None else "calibrated-classifier")
        row = json.loads(outside("optimize", config, "--json", "--set", "method.moves=[delete]").stdout)
        losses.append(row["terms"]["tone"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[2] > losses[1] + 0.05  # A high temperature makes the classifier less sure.


@pytest.mark.slow
def test_a_reader_and_a_recipe_work_by_name(outside: Outside, tmp_path: Path) -> None:
    photos = sorted(PHOTOS.glob("*.jpg"))[:2]
    data = tmp_path / "photos.pipes"
    data.write_text("".join(f"{photo} | a photo\n{photo} | another caption\n" for photo in photos))
    config = tmp_path / "run.yaml"
    config.write_text(f"data: {data.name}\nrecipe: {{kind: best-label, labels: [dog, balloon]}}\n")
    done = outside("run", config, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["captions"] == 2
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        assert line["text"] in ("A photo of a dog.", "A photo of a balloon.")
        assert line["exact_evaluations"] == 2
    done = outside("run", config, "--set", "recipe=vehicles", "--set", "format=pipes", "--print-config")
    assert "boat" in done.stdout
    assert "format: pipes" in done.stdout


def test_a_metric_works_by_name(outside: Outside, tmp_path: Path) -> None:
    captions = tmp_path / "captions.jsonl"
    rows = [{"id": number, "text": text} for number, text in enumerate(("A dog.", "Two dogs.", "The cat."))]
    captions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = outside("score", captions, "--metrics", "article", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["metrics"]["article"]["value"] == pytest.approx(200 / 3)
    done = outside("score", captions, "--metrics", "article,words")
    assert "begins with an article, %" in done.stdout
    done = outside("score", captions, "--metrics", "artickle")
    assert done.returncode == 2
    assert "did you mean 'article'?" in done.stderr

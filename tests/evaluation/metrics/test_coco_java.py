from __future__ import annotations

import json
import stat
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from promptfuse.evaluation.metrics import Captions, Unavailable
from promptfuse.evaluation.metrics import coco_java as module
from promptfuse.evaluation.metrics.coco_java import SPICE_MODELS, Meteor, Spice, meteor_from_counts

TEXTS = ["a man is riding the horses on a beach", "", "dogs are running two", "a small boat", "café bars"]
REFERENCES = [
    ["a man riding a horse on the shore", "someone rides along the beach"],
    ["a b c"],
    ["two dogs run"],
    ["a small boat", "a vessel on the water"],
    ["a bar ||| in a café"],
]


def captions(**more):
    return Captions([str(index) for index in range(5)], TEXTS, REFERENCES, **more)


@pytest.mark.slow
def test_meteor_agrees_with_pycocoevalcap_called_directly(java, monkeypatch):
    given = captions()
    truth = {
        index: [text.replace("|||", "") for text in texts]
        for index, texts in enumerate(given.tokens.references)
    }
    texts = {index: [text] for index, text in enumerate(given.tokens.texts)}
    # Java reads its paraphrases for long, so both ask one program.
    with module._meteor(seconds=600) as theirs:
        monkeypatch.setattr(module, "_meteor", lambda seconds: nullcontext(theirs))
        (found,) = Meteor().measure(given)
        if isinstance(found, Unavailable):
            pytest.skip(found.reason)
        value, own = theirs.compute_score(truth, texts)
    assert type(theirs).__module__ == "pycocoevalcap.meteor.meteor"
    assert found.value == pytest.approx(value, abs=1e-6)
    assert found.values == pytest.approx(own, abs=1e-6)
    assert found.values[1] == 0
    assert found.values[3] == 1


def test_meteor_by_hand():
    # "the cat sat on the mat" against "on the mat sat the cat", in three chunks, the exact matcher alone.
    counts = np.zeros((1, 23))
    counts[0, [0, 1, 2, 3]] = 6, 6, 3, 3
    counts[0, [4, 5, 6, 7]] = 3, 3, 3, 3
    counts[0, [20, 21, 22]] = 3, 6, 6
    assert meteor_from_counts(counts)[0] == pytest.approx(1 - 0.6 * (3 / 6) ** 0.2)


def test_meteor_that_takes_too_long_is_stopped(java):
    (found,) = Meteor(seconds=0.05).measure(captions())
    assert isinstance(found, Unavailable)
    assert "was stopped" in found.reason


@pytest.mark.parametrize("metric", [Meteor, Spice])
def test_without_java_the_column_says_so(metric, monkeypatch):
    monkeypatch.setattr(module, "find_java", lambda: None)
    (found,) = metric().measure(captions(tokenizer="python"))
    assert isinstance(found, Unavailable)
    assert "no java command found" in found.reason
    assert "install" in found.reason


def test_without_its_models_spice_says_what_to_run_and_does_not_download(java, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "package_folder", lambda: tmp_path)
    (found,) = Spice().measure(captions())
    assert isinstance(found, Unavailable)
    assert SPICE_MODELS[0] in found.reason
    assert "python -m pycocoevalcap.spice.get_stanford_models" in found.reason
    assert list(tmp_path.iterdir()) == []


PROGRAM = """#!{python}
# Stands for Java with SPICE, whose models cannot be had everywhere: checks how it is called.
import json, sys
arguments = sys.argv[1:]
assert arguments[:2] == ["-jar", "-Xmx8G"] and arguments[2].endswith("spice-1.0.jar"), arguments
assert arguments[4] == "-cache" and arguments[6] == "-out" and arguments[8:] == ["-subset", "-silent"]
given = json.load(open(arguments[3]))
assert [row["image_id"] for row in given] == [0, 1, 2, 3, 4] and given[2]["refs"] == ["two dogs run"]
scores = [{scores}][0]
rows = [
    {{"image_id": row["image_id"], "scores": {{"All": {{"f": value}}}}}} for row, value in zip(given, scores)
]
json.dump(rows[::-1], open(arguments[7], "w"))
"""


@pytest.fixture
def spice(tmp_path, monkeypatch):
    """SPICE with a program in Java's place, and models that are there by name."""
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "spice" / "lib").mkdir(parents=True)
    for name in SPICE_MODELS:
        (tmp_path / "spice" / "lib" / name).touch()
    monkeypatch.setattr(module, "package_folder", lambda: tmp_path)

    def program(body: str) -> None:
        file = tmp_path / "java"
        file.write_text(body)
        file.chmod(file.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setattr(module, "find_java", lambda: str(file))
        monkeypatch.setattr("promptfuse.evaluation.metrics.java.find_java", lambda: str(file))

    return program


def unshuffled():
    return captions(tokenizer="python")


def test_spice_reads_the_scores_of_all_captions(spice):
    spice(PROGRAM.format(python=sys.executable, scores=[0.5, 0.0, 1.0, 0.25, None]))
    (found,) = Spice().measure(unshuffled())
    assert found.values[:4].tolist() == [0.5, 0, 1, 0.25]
    assert np.isnan(found.values[4])
    assert found.value == 0.4375
    assert found.n == 4


def test_spice_that_fails_says_why(spice):
    spice(f"#!{sys.executable}\nimport sys\nsys.exit('Error: Could not reserve enough space')\n")
    (found,) = Spice().measure(unshuffled())
    assert "Could not reserve enough space" in found.reason


def test_spice_that_leaves_captions_out_says_so(spice):
    spice(PROGRAM.format(python=sys.executable, scores=[0.5]))
    (found,) = Spice().measure(unshuffled())
    assert found.reason == "SPICE gave no score for some captions"


def test_spice_that_hangs_is_stopped(spice):
    spice(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    (found,) = Spice(seconds=0.5).measure(unshuffled())
    assert "was stopped" in found.reason


def test_nothing_is_left_in_the_packages_folder(java):
    import pycocoevalcap

    folder = Path(next(iter(pycocoevalcap.__path__)))
    before = {str(file) for file in folder.rglob("*") if "__pycache__" not in file.parts}
    Meteor(seconds=0.05).measure(captions())
    assert captions().tokens.kind == "stanford"
    assert {str(file) for file in folder.rglob("*") if "__pycache__" not in file.parts} == before


def test_the_cache_may_be_out_of_reach(spice, tmp_path, monkeypatch):
    (tmp_path / "file").write_text(json.dumps({}))
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path / "file"))
    spice(PROGRAM.format(python=sys.executable, scores=[1.0] * 5))
    (found,) = Spice().measure(unshuffled())
    assert found.value == 1

"""Weights of the caption task: numbers, automatic ones and factors on those."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import promptfuse as pf
from promptfuse.models.presets import PRESETS, load_preset
from promptfuse.search.drafts import automatic_weights

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "cat.jpg"
QUICK: dict[str, Any] = {"steps": 4, "beams": 2, "candidates": 4}
MODELS = {"lm": "mini-lm", "image_text": "mini-clip", "sentiment": "mini-tone"}


@pytest.fixture(scope="module")
def captioner() -> pf.Captioner:
    return pf.Captioner(MODELS)


def test_a_preset_without_weights_has_automatic_ones(captioner):
    objective = captioner.objective(PHOTO, sentiment="positive")
    expected = automatic_weights(objective)
    assert objective.weights == expected
    assert expected["fluency"] == 1.0
    assert expected["image"] not in (1.0, 22.0)
    assert captioner(PHOTO, sentiment="positive", **QUICK).weights == expected


def test_numbers_are_weights_and_factors_multiply(captioner):
    auto = captioner.objective(PHOTO).weights["image"]
    for given, image in ((5, 5.0), ("auto", auto), ("1x", auto), ("2x", 2 * auto), ("0.5x", auto / 2)):
        found = captioner.objective(PHOTO, weights={"image": given, "fluency": 3}).weights
        assert found == pytest.approx({"fluency": 3.0, "image": image}), given
    # With a preset that has numbers too: its own stay for the other terms.
    tuned = pf.Captioner({**MODELS, "sentiment_weight": 9, "fluency_weight": 2})
    found = tuned.objective(PHOTO, "positive", weights={"image": "2x"}).weights
    assert found == pytest.approx({"fluency": 2.0, "image": 2 * auto, "sentiment": 9.0})


def test_the_tuned_presets_keep_their_numbers():
    mini, paper = PRESETS["mini"], PRESETS["paper"]
    assert (mini.fluency_weight, mini.image_weight, mini.sentiment_weight) == (1, 5, 1)
    assert (paper.fluency_weight, paper.image_weight, paper.sentiment_weight) == (1, 22, 2)


def test_weights_in_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    for lines, expected in (
        ("base: mini\n", (1, 5, 1)),
        ("base: mini\nweights: auto\n", (1, "auto", "auto")),
        ("base: mini\nweights: auto\nsentiment_weight: 3\n", (1, "auto", 3)),
        ("base: mini\nimage_weight: 2x\n", (1, "2x", 1)),
        ("lm: mini-lm\nimage_text: mini-clip\nweights: auto\n", (1, "auto", "auto")),
    ):
        path.write_text(lines)
        found = load_preset(path)
        assert (found.fluency_weight, found.image_weight, found.sentiment_weight) == expected, lines
    for lines, words in (
        ("base: mini\nweights: atuo\n", ["weights", "'atuo'", "auto"]),
        ("base: mini\nimage_weight: 0x\n", ["image_weight", "'0x'", "2x"]),
    ):
        path.write_text(lines)
        with pytest.raises(pf.ConfigError) as caught:
            load_preset(path)
        assert all(word in str(caught.value) for word in ("mine.yaml", *words)), caught.value


@pytest.mark.slow
def test_the_command_shows_the_weights_that_it_used(promptfuse, tmp_path, captioner):
    path = tmp_path / "mine.yaml"
    path.write_text("lm: mini-lm\nimage_text: mini-clip\n")
    options = ["--models", path, "--steps", "2", "--beams", "2", "--candidates", "4", "--json"]
    auto = captioner.objective(PHOTO).weights["image"]
    for extra, image in (([], auto), (["--weight", "image=2x"], 2 * auto), (["--weight", "image=5"], 5.0)):
        code, out, _ = promptfuse("caption", PHOTO, *options, *extra)
        assert code == 0
        assert json.loads(out)["weights"] == pytest.approx({"fluency": 1.0, "image": image}, rel=1e-4)
    code, out, err = promptfuse("caption", PHOTO, *options, "--weight", "image=twice")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "'twice' is not a number" in err


@pytest.mark.slow
def test_a_search_in_a_file(promptfuse, tmp_path):
    path = tmp_path / "search.yaml"
    path.write_text(
        f"models: {{lm: mini-lm, clip: mini-clip}}\nweights: {{image: 2x}}\nstopping: {{steps: 2}}\n"
        f"method: {{kind: AutoDAN, candidates: 4}}\nterms:\n  fluency: {{kind: Fluency, model: lm}}\n"
        f"  image: {{kind: ImageSimilarity, model: clip, image: {PHOTO}}}\n"
    )
    found = {}
    for weights in ("auto", "{image: 2x}", "{image: 2}"):
        code, out, _ = promptfuse("optimize", path, "--set", f"weights={weights}", "--json")
        assert code == 0
        found[weights] = json.loads(out)["weights"]
    assert (
        found["{image: 2x}"] == found["{image: 2}"] == {"fluency": 1.0, "image": 2 * found["auto"]["image"]}
    )
    code, _, err = promptfuse("optimize", path, "--set", "weights={image: twice}", "--json")
    assert (code, err.count("\n")) == (2, 1)
    assert "weights.image" in err

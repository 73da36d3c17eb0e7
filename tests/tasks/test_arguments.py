"""Wrong kinds of arguments are refused in one line; other kinds that say the same are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import promptfuse as pf
from promptfuse.models import PRESETS, load_preset

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "hot_air_balloon.jpg"
FEW: dict[str, Any] = {"steps": 1, "beams": 1, "candidates": 2}
MODELS = {"lm": "mini-lm", "image_text": "mini-clip"}

WRONG: list[tuple[str, Any, list[str]]] = [
    ("models", {}, ["'lm' is missing"]),
    ("models", {"lm": "mini-lm"}, ["'image_text' is missing"]),
    ("models", MODELS | {"stepz": 3}, ["stepz", "did you mean 'steps'?"]),
    ("models", {"base": "midi"}, ["no preset 'midi'"]),
    ("models", {7: 8, **MODELS}, ["'7'"]),
    ("models", [], ["[] is not a preset", "mini, paper"]),
    ("models", None, ["None is not a preset"]),
    ("models", 5, ["5 is not a preset"]),
    ("models", pf.Preset, ["is not a preset"]),
    ("steps", "a", ["steps: 'a' is not a whole number"]),
    ("steps", 2.5, ["steps: 2.5 is not a whole number"]),
    ("steps", True, ["steps: True is not a whole number"]),
    ("steps", 0, ["steps: must be at least 1, got 0"]),
    ("beams", [4], ["beams: [4] is not a whole number"]),
    ("candidates", 1.5, ["candidates: 1.5 is not a whole number"]),
    ("seed", "a", ["seed: 'a' is not a whole number"]),
    ("seed", -1, ["seed: must be at least 0, got -1"]),
    ("weights", 5, ["weights: 5 is not a mapping"]),
    ("weights", [("image", 2)], ["is not a mapping"]),
    ("weights", {"image": "x"}, ["image: 'x' is not a number"]),
    ("weights", {"image": None}, ["image: None is not a number"]),
    ("prefix", 5, ["prefix: 5 is not a text"]),
    ("callbacks", 5, ["callbacks: 5 cannot be called"]),
    ("callbacks", [5], ["callbacks: 5 cannot be called"]),
    ("device", 3.5, ["no device '3.5'"]),
    ("sentiment", 5, ["no sentiment 5"]),
    ("steer", 5, ["steer 5 is not valid"]),
]


def refused(call: Any, words: list[str], kind: type[Exception] = pf.ConfigError) -> None:
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(("name", "value", "words"), WRONG)
def test_wrong_kinds(name: str, value: Any, words: list[str]) -> None:
    refused(lambda: pf.caption(PHOTO, **{**FEW, name: value}), words)
    refused(lambda: pf.caption_many([PHOTO], **{**FEW, name: value}), words)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, ["5 is not a photo"]),
        (None, ["None is not a photo"]),
        ([PHOTO], ["is not a photo"]),
        ({}, ["{} is not a photo"]),
    ],
)
def test_what_is_no_photo(value: Any, words: list[str]) -> None:
    refused(lambda: pf.caption(value, **FEW), words, pf.ImageError)
    refused(lambda: pf.caption_many([value], **FEW), words, pf.ImageError)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("in_flight", "a", ["in flight: 'a' is not a whole number"]),
        ("in_flight", 0, ["in flight: must be at least 1, got 0"]),
        ("workers", 1.5, ["workers: 1.5 is not a whole number"]),
        ("workers", 0, ["workers: must be at least 1, got 0"]),
        ("on_outcome", 5, ["on_outcome: 5 cannot be called"]),
        ("stepz", 5, ["no setting 'stepz'", "did you mean 'steps'?"]),
    ],
)
def test_wrong_kinds_for_many(name: str, value: Any, words: list[str]) -> None:
    refused(lambda: pf.caption_many([PHOTO], **{**FEW, name: value}), words)


@pytest.mark.parametrize("images", [5, None, str(PHOTO), PHOTO])
def test_what_is_no_list_of_photos(images: Any) -> None:
    refused(lambda: pf.caption_many(images, **FEW), ["images: ", "give a list of photos"])


@pytest.mark.slow
def test_other_kinds_that_say_the_same() -> None:
    expected = pf.caption(PHOTO, **FEW)
    same: list[dict[str, Any]] = [
        {"models": Path("mini")},
        {"models": {"base": "mini"}},
        {"models": PRESETS["mini"]},
        {"models": PRESETS["mini"].model_dump()},
        {"steps": np.int64(1), "beams": np.int32(1), "seed": np.uint8(0)},
        {"weights": {"image": np.float32(PRESETS["mini"].image_weight)}},
        {"weights": None, "prefix": None, "callbacks": None, "steer": None, "device": None},
    ]
    for changed in same:
        found = pf.caption(PHOTO, **{**FEW, **changed})
        assert (found.text, found.value) == (expected.text, pytest.approx(expected.value)), changed
    for images in ({PHOTO: 1}, iter([PHOTO]), (one for one in [PHOTO]), np.array([str(PHOTO)])):
        assert [found.text for found in pf.caption_many(images, **FEW)] == [expected.text]


def test_one_function_is_called_as_a_list_of_one() -> None:
    seen: list[int] = []
    pf.caption(PHOTO, callbacks=lambda search, step: seen.append(step.number), **FEW)
    assert seen == [1]


# ------------------------------------------------------------------------------------------ presets


@pytest.mark.slow
def test_a_preset_without_a_sentiment(promptfuse: Any, tmp_path: Path) -> None:
    preset = pf.Preset(**MODELS, image_weight=3.5, length_exponent=0.5)
    assert preset.sentiment is None
    assert pf.caption(PHOTO, models=preset, **FEW).text == pf.caption(PHOTO, **FEW).text
    words = ["no sentiment 'positive'", "classifier"]
    refused(lambda: pf.caption(PHOTO, models=preset, sentiment="positive", **FEW), words)
    refused(
        lambda: pf.caption(PHOTO, models=preset, steer="sentiment:positive", **FEW), ["no sentiment class"]
    )
    steered = pf.caption(PHOTO, models=preset, steer={"mini-tone:positive": 8}, **FEW)
    assert steered.weights["steer:positive"] == 8
    file = tmp_path / "mine.yaml"
    file.write_text("lm: mini-lm\nimage_text: mini-clip\n")
    assert load_preset(file).sentiment is None
    code, out, err = promptfuse("caption", PHOTO, "--models", file, "--sentiment", "positive")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "classifier" in err


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, ["'lm' is missing"]),
        ({"lm": 5, "image_text": "x"}, ["lm: expected a text, found 5"]),
        (MODELS | {"steps": 0}, ["steps: ", "found 0"]),
        (MODELS | {"stepz": 1}, ["no field 'stepz'", "did you mean 'steps'?"]),
    ],
)
def test_wrong_fields_of_a_preset(fields: dict[str, Any], words: list[str]) -> None:
    refused(lambda: pf.Preset(**fields), ["preset: ", *words])

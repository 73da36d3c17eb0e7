"""Labels of any classifiers as terms of the caption task."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import promptfuse as pf
from promptfuse.evaluation.recipes import load_recipe
from promptfuse.models.presets import PRESETS
from promptfuse.tasks import caption_all
from promptfuse.tasks.steering import read_steers, spell_steers

PHOTOS = sorted((Path(__file__).parents[2] / "examples" / "photos").glob("*.jpg"))[:3]
IMAGE_WEIGHT = PRESETS["mini"].image_weight
QUICK: dict[str, Any] = {"steps": 4, "beams": 2, "candidates": 6}
OPTIONS = ["--steps", "4", "--beams", "2", "--candidates", "6"]


@pytest.fixture(scope="module")
def captioner() -> pf.Captioner:
    return pf.Captioner("mini")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("mini-tone:positive=1.5", ("mini-tone", "positive", 1.5)),
        ("sentiment:negative", ("sentiment", "negative", None)),
        ("org/model:very happy=-2e-1", ("org/model", "very happy", -0.2)),
        (r"C:\models\a=b:joy=3", (r"C:\models\a=b", "joy", 3.0)),
        ("./tone:x=y=1", ("./tone", "x=y", 1.0)),
        ("mini-tone : positive = 8", ("mini-tone", "positive", 8.0)),
    ],
)
def test_a_steer_is_read_from_the_right(text: str, parts: tuple[str, str, float | None]) -> None:
    steer = pf.Steer.parse(text)
    assert (steer.model, steer.label, steer.weight) == parts
    assert pf.Steer.parse(str(steer)) == steer


@pytest.mark.parametrize("text", ["", "positive", "positive=2", ":positive=2", "mini-tone:=2", "mini-tone:"])
def test_a_steer_without_model_or_label_is_refused(text: str) -> None:
    with pytest.raises(pf.ConfigError, match="needs a model and a label; write MODEL:LABEL=WEIGHT"):
        pf.Steer.parse(text)


def test_names_of_steers_are_unique() -> None:
    steers = [pf.Steer("a", "joy"), "b:joy=2", "c:fear", "d:joy=-1"]
    found = read_steers(steers)
    assert list(found) == ["steer:joy", "steer:joy_2", "steer:fear", "steer:joy_3"]
    assert found["steer:joy_3"] == pf.Steer("d", "joy", -1)
    assert read_steers("b:joy=2") == {"steer:joy": pf.Steer("b", "joy", 2)}


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ({"mini-tone:positive": 8}, [8]),
        ({"mini-tone:positive": 8, "a:b": -1.5}, [8, -1.5]),
        ({"mini-tone:positive": None}, [None]),
        ({"mini-tone:positive=2": None}, [2]),
        ({"mini-tone": {"positive": 8, "negative": -2}}, [8, -2]),
        ([("mini-tone:positive", 8)], [8]),
        ([["mini-tone:positive", 8], "a:b=-1"], [8, -1]),
        ([{"mini-tone:positive": 8}, pf.Steer("a", "b", 3)], [8, 3]),
        ([(pf.Steer("mini-tone", "positive"), 8.0)], [8]),
        ([("mini-tone", "positive", 8)], [8]),
        (("mini-tone:positive", 8), [8]),
        (("mini-tone", "positive", 8), [8]),
        (("mini-tone:positive=8", "a:b"), [8, None]),
        (None, []),
        ({}, []),
    ],
)
def test_every_spelling_keeps_the_weight(given: Any, weights: list[float | None]) -> None:
    found = read_steers(given)
    assert [steer.weight for steer in found.values()] == weights
    if found:
        assert next(iter(found.values())).model == "mini-tone"
        assert next(iter(found)) == "steer:positive"
    assert list(read_steers(spell_steers(given)).values()) == list(found.values())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mini-tone:positive": "much"}, ["mini-tone:positive", "'much' is not a number"]),
        ({"mini-tone:positive": True}, ["mini-tone:positive", "True is not a number"]),
        ({"mini-tone:positive": 0}, ["mini-tone:positive", "must be finite and not zero"]),
        ({"mini-tone:positive": float("nan")}, ["mini-tone:positive", "finite"]),
        ({"mini-tone:positive=2": 8}, ["mini-tone:positive=2", "second weight, 8"]),
        ({"mini-tone": 8}, ["'mini-tone' needs a model and a label"]),
        ({5: 8}, ["5 needs a model and a label"]),
        ({"mini-tone": {7: 8}}, ["needs a model and a label"]),
        ([("mini-tone:positive", 8), "mini-tone:positive"], ["given twice"]),
        (8, ["steer 8 is not valid", "MODEL:LABEL=WEIGHT"]),
        ([8.0], ["steer 8.0 is not valid", "MODEL:LABEL=WEIGHT"]),
        (iter(["mini-tone:positive"]), ["is not valid", "a list"]),
    ],
)
def test_what_is_no_steer_is_refused(given: Any, words: list[str]) -> None:
    with pytest.raises(pf.ConfigError) as caught:
        read_steers(given)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.slow
def test_a_weight_in_a_mapping_is_the_terms(captioner: pf.Captioner) -> None:
    spelled = captioner(PHOTOS[0], steer="mini-tone:positive=8", **QUICK)
    for steer in ({"mini-tone:positive": 8}, [("mini-tone:positive", 8)]):
        found = captioner(PHOTOS[0], steer=steer, **QUICK)
        assert found.weights["steer:positive"] == 8
        assert (found.text, found.value) == (spelled.text, spelled.value)
    assert captioner.objective(PHOTOS[0], steer={"mini-tone:positive": 8}).terms["steer:positive"].weight == 8


@pytest.mark.parametrize("given", [{"mini-tone:positive": 8}, [["mini-tone:positive", 8]]])
def test_a_recipe_takes_every_spelling(given: Any) -> None:
    recipe = load_recipe("ours", steer=given)
    assert recipe.steer == ["mini-tone:positive=8"]


def test_terms_are_the_labels_losses_with_their_weights(
    captioner: pf.Captioner, checkpoint: Callable[[str], Path], model: Callable[..., Any]
) -> None:
    """Two classifiers with tokenizers of their own, one label to go to and one to stay away from."""
    bert, roberta = checkpoint("bert"), checkpoint("roberta")
    objective = captioner.objective(
        PHOTOS[0],
        steer=[f"{bert}:POSITIVE=2.5", f"{roberta}:neutral=-0.5", "sentiment:positive"],
        weights={"steer:neutral": -0.75},
    )
    assert objective.weights == {
        "fluency": 1.0, "image": IMAGE_WEIGHT, "steer:POSITIVE": 2.5, "steer:neutral": -0.75,
        "steer:positive": PRESETS["mini"].sentiment_weight,
    }  # fmt: skip
    text = "A brown dog runs through the green grass."
    found = objective.exact(text)
    losses = {
        "steer:POSITIVE": pf.ClassProbability(model("bert"), "positive").exact(text),
        "steer:neutral": pf.ClassProbability(model("roberta"), "neutral").exact(text),
        "steer:positive": pf.ClassProbability(pf.load_model("mini-tone"), "positive").exact(text),
    }
    for name, loss in losses.items():
        assert found.terms[name] == pytest.approx(loss, abs=1e-5)
    plain = captioner.objective(PHOTOS[0]).exact(text)
    expected = plain.value + sum(objective.weights[name] * loss for name, loss in losses.items())
    assert found.value == pytest.approx(expected, abs=1e-4)
    assert set(captioner.loaded()) == {"lm", "image_text", "sentiment", str(bert), str(roberta)}


def test_the_sentiment_is_a_steer(captioner: pf.Captioner) -> None:
    short = captioner(PHOTOS[0], sentiment="negative", **QUICK)
    for name in ("sentiment", "mini-tone"):
        long = captioner(PHOTOS[0], steer=[f"{name}:negative"], **QUICK)
        assert long.text == short.text
        assert long.value == pytest.approx(short.value, abs=1e-5)
        assert long.terms["steer:negative"] == pytest.approx(short.terms["sentiment"], abs=1e-5)
    assert captioner.classifier(pf.Steer("mini-tone", "negative"))[0] is captioner.model("sentiment")


@pytest.mark.slow
def test_the_sign_of_the_weight_is_a_direction(captioner: pf.Captioner) -> None:
    judge = pf.ClassProbability(captioner.model("sentiment"), "positive")
    texts = [pf.caption(PHOTOS[0], steer=f"mini-tone:positive={weight}", **QUICK).text for weight in (4, -4)]
    towards, away = (judge.exact(text) for text in texts)
    assert towards < 0.7 < away  # log 2: one caption is positive, the other is not


def test_the_presets_labels_hold_for_its_own_classifier(checkpoint: Callable[[str], Path]) -> None:
    """Which may be called LABEL_0 and so on."""
    labels = {"positive": "neutral", "negative": "negative"}
    preset = pf.PRESETS["mini"].model_copy(update={"sentiment": str(checkpoint("roberta")), "labels": labels})
    captioner = pf.Captioner(preset)
    steers = [pf.Steer("sentiment", "positive"), pf.Steer("sentiment", "Positive"), "sentiment:neutral=1"]
    objective = captioner.objective(PHOTOS[0], steer=steers)
    terms = [objective.terms[name].describe() for name in list(objective.terms)[2:]]
    assert [term["label"] for term in terms] == ["neutral", "positive", "neutral"]


@pytest.mark.slow
@pytest.mark.parametrize("in_flight", [1, 3])
def test_photos_in_flight_are_steered_as_alone(
    captioner: pf.Captioner, checkpoint: Callable[[str], Path], in_flight: int
) -> None:
    steer = [f"{checkpoint('bert')}:negative=3", "mini-tone:positive=1"]
    outcomes = caption_all(captioner, PHOTOS, in_flight=in_flight, steer=steer, **QUICK)
    for photo, outcome in zip(PHOTOS, outcomes, strict=True):
        assert isinstance(outcome, pf.Result)
        alone = captioner(photo, steer=steer, **QUICK)
        assert outcome.text == alone.text
        assert list(outcome.terms) == ["fluency", "image", "steer:negative", "steer:positive"]
        exact = captioner.objective(photo, steer=steer).exact(alone.text)
        assert outcome.terms == pytest.approx(exact.terms, abs=1e-4)
    many = pf.caption_many(PHOTOS[:1], steer=steer, **QUICK)
    assert many[0].text == captioner(PHOTOS[0], steer=steer, **QUICK).text


@pytest.mark.slow
def test_two_steers_on_the_command_line(
    promptfuse: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoint("roberta"), tmp_path / "a:b=c"))
    page = tmp_path / "trace.html"
    steers = [f"{folder}:neutral=2", "sentiment:positive=-1"]
    options = [part for steer in steers for part in ("--steer", steer)]
    options += ["--weight", "steer:neutral=3", "--json", "--trace", str(page), *OPTIONS]
    code, out, err = promptfuse("caption", str(PHOTOS[0]), str(PHOTOS[1]), "--in-flight", "2", *options)
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    for row in rows:
        assert row["steer"] == steers
        assert row["weights"] == {
            "fluency": 1.0,
            "image": IMAGE_WEIGHT,
            "steer:neutral": 3.0,
            "steer:positive": -1.0,
        }
        assert row["models"]["steer:neutral"]["name"] == str(folder)
        total = sum(row["weights"][name] * loss for name, loss in row["terms"].items())
        assert row["value"] == pytest.approx(total)
    html = page.read_text(encoding="utf-8")
    assert "steer:neutral" in html
    assert "sentiment:positive=-1" in html


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steer", "mini-tone:angry=1"], ["no label 'angry'", "negative, neutral, positive"]),
        (["--steer", "sentiment:grumpy"], ["no label 'grumpy'", "negative, neutral, positive"]),
        (
            ["--steer", "mini-tone:positive=1", "--steer", "mini-tone:positive=2"],
            ["mini-tone:positive is given twice"],
        ),
        (["--steer", "positive=1"], ["needs a model and a label", "MODEL:LABEL=WEIGHT"]),
        (["--steer", "mini-tone:positive=much"], ["'much' is not a number"]),
        (
            ["--steer", "mini-tone:positive=0"],
            ["weight of steer 'mini-tone:positive=0'", "must be finite and not zero"],
        ),
        (["--steer", "mini-tone:positive=nan"], ["weight of steer 'mini-tone:positive=nan'", "finite"]),
        (
            ["--steer", "mini-tone:positive=1e9"],
            ["weight of steer 'mini-tone:positive=1e9'", "no other term counts"],
        ),
        (["--steer", "mini-lm:positive=1"], ["needs a model of kind classifier", "mini-lm"]),
        (["--steer", "lm:positive=1"], ["needs a model of kind classifier", "mini-lm"]),
        (["--steer", "./no-such-folder:positive=1"], ["./no-such-folder"]),
        (["--weight", "steer:positive=1"], ["no term 'steer:positive'", "fluency, image"]),
        (
            ["--steer", "mini-tone:positive", "--weight", "steer:negative=1"],
            ["choose from", "steer:positive"],
        ),
    ],
)
def test_bad_steers_are_refused_in_one_line(promptfuse: Any, options: list[str], words: list[str]) -> None:
    code, out, err = promptfuse("caption", str(PHOTOS[0]), *options, *OPTIONS)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    assert err.startswith("promptfuse: ")
    for word in words:
        assert word in err


def test_a_models_folder_may_be_called_as_a_role_is(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(checkpoint("bert"), tmp_path / "lm")
    monkeypatch.chdir(tmp_path)
    captioner = pf.Captioner("mini")
    captioner.load(steer="lm:positive=1")
    assert captioner.loaded()["lm"].name == "mini-lm"
    assert set(captioner.loaded()) == {"lm", "image_text", "./lm"}

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import ClassVar

import pytest

from promptfuse import load_model
from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics import METRICS, Metric, Score, Unavailable, score
from promptfuse.evaluation.metrics import metrics as registered

PHOTOS = sorted((Path(__file__).parents[3] / "examples" / "photos").glob("*.jpg"))[:6]
QUICK = ["bleu", "rouge_l", "cider_d", "diversity", "words"]


def python(predictions, references, **more):
    more.setdefault("metrics", QUICK)
    return score(predictions, references, tokenizer="python", **more)


def test_every_column_is_there_or_says_why(system, written, monkeypatch):
    monkeypatch.setattr("promptfuse.evaluation.metrics.coco_java.find_java", lambda: None)
    found = score(system, written, tokenizer="python")
    assert list(found.metrics) == [column for columns in METRICS.values() for column in columns]
    reasons = {name: one.reason for name, one in found.metrics.items() if isinstance(one, Unavailable)}
    assert set(reasons) == {
        "meteor", "spice", "clipscore", "refclipscore", "perplexity_word", "perplexity_token",
        "sentiment_accuracy", "judged",
    }  # fmt: skip
    assert "java" in reasons["meteor"]
    assert "--clip" in reasons["clipscore"]
    assert "--lm" in reasons["perplexity_word"]
    assert "--classifier" in reasons["sentiment_accuracy"]
    assert "--judge-texts" in reasons["judged"]
    assert all(one.n == 6 for one in found.metrics.values() if isinstance(one, Score))


def test_all_models_judge(system, written):
    judge, lm, tone = (load_model(f"mini-{name}") for name in ("clip", "lm", "tone"))
    found = score(
        system,
        written,
        metrics=["clipscore", "perplexity", "sentiment"],
        images=dict(zip(system, PHOTOS, strict=True)),
        clip=judge,
        lm=lm,
        classifier=tone,
        label="positive",
    )
    assert all(isinstance(one, Score) and one.n == 6 for one in found.metrics.values())
    assert found.metrics["perplexity_word"].better == "lower"
    judges = {"judge": judge, "lm": lm, "classifier": tone}
    assert found.models == {role: model.describe() for role, model in judges.items()}
    assert found.tokenizer == ""
    assert not found.judge_is_searched


@pytest.mark.parametrize("searched", ["identity", "fingerprint", None])
def test_a_judge_that_was_searched_with_is_told(system, written, searched):
    judge = load_model("mini-clip")
    images = dict(zip(system, PHOTOS, strict=True))
    found = score(
        system, written, metrics=["clipscore"], images=images, clip=judge,
        searched=["0123456789abcdef", *([getattr(judge, searched)] if searched else [])],
    )  # fmt: skip
    assert found.judge_is_searched is bool(searched)
    assert any("mini-clip" in notice and "guided their search" in notice for notice in found.notices) is bool(
        searched
    )
    assert found.to_dict()["judge_is_searched"] is bool(searched)


def test_other_models_that_were_searched_with_are_told_too(system, written):
    lm, tone = (load_model(f"mini-{name}") for name in ("lm", "tone"))
    found = score(
        system, written, metrics=["perplexity", "sentiment"], lm=lm, classifier=tone, label="positive",
        searched=[lm.fingerprint],
    )  # fmt: skip
    (notice,) = found.notices
    assert notice.startswith("perplexity is by mini-lm, which guided their search")
    assert not found.judge_is_searched


def test_groups_and_columns_can_be_asked_for(system, written):
    found = python(system, written, metrics=["words", "bleu_4", "diversity", "bleu_1"])
    assert list(found.metrics) == ["bleu_1", "bleu_4", *METRICS["diversity"], "words"]


@pytest.mark.parametrize(("names", "said"), [(["cider"], "did you mean 'cider_d'"), ([], "no metric given")])
def test_unknown_metrics(system, written, names, said):
    with pytest.raises(ConfigError, match=said):
        score(system, written, metrics=names)


@pytest.mark.parametrize("empty", [True, False])
def test_predictions_without_references_are_left_out_and_counted(system, written, empty):
    boat = written.pop("boat")
    whole = python({id_: system[id_] for id_ in written}, written)
    found = python(system, written | ({"boat": []} if empty else {}))
    assert found.ids == ("dog", "cat", "bike", "kids", "food")
    assert found.notices == ("1 of 6 photos have no references and are left out, e.g. 'boat'",)
    assert found.to_dict()["left_out"] == {"no_references": 1, "no_prediction": 0}
    assert found.to_dict()["metrics"] == whole.to_dict()["metrics"]
    assert python(system, written | {"boat": boat}).left_out == {"no_references": 0, "no_prediction": 0}


def test_references_of_other_photos(system, written):
    other = {f"{id_}.jpg": texts for id_, texts in written.items()}
    with pytest.raises(
        ConfigError, match=r"no references for 'dog' or any other prediction, their ids look like 'dog\.jpg'"
    ):
        python(system, other)


def test_no_predictions(written):
    with pytest.raises(ConfigError, match="no predictions"):
        python({}, written)


def test_references_without_predictions_are_counted_and_do_not_count(system, written):
    whole = python(system, written)
    more = python(system, written | {"x": ["a tree"], "y": ["a house"]})
    assert more.notices == ("2 of 8 photos have no prediction; the others are scored",)
    assert {name: one.value for name, one in more.metrics.items()} == {
        name: one.value for name, one in whole.metrics.items()
    }


def test_empty_captions_are_scored_and_counted(system, written):
    found = python(system | {"boat": "", "kids": " "}, written, metrics=[*QUICK, "words"])
    assert "2 of 6 captions are empty; they are scored as they are" in found.notices
    assert found.columns["cider_d"].values[3:5].tolist() == [0, 0]
    assert found.metrics["words"].n == 6


@pytest.mark.parametrize(
    "references", [{}, {"dog": [], "cat": [], "bike": [], "boat": [], "kids": [], "food": []}]
)
def test_without_references_the_rest_is_computed(system, references):
    found = python(system, references)
    assert "no references" in found.metrics["cider_d"].reason
    assert found.metrics["words"].value > 4
    assert found.metrics["pairwise_cider"].value >= 0


def test_costs_become_columns(system, written):
    seconds = {id_: float(number) for number, id_ in enumerate(system)}
    found = python(system, written, costs={"seconds": seconds, "exact_evaluations": {"dog": 8.0}})
    assert found.metrics["seconds"].value == 2.5
    assert found.metrics["seconds"].better == "lower"
    assert found.metrics["exact_evaluations"].n == 1


def test_json_has_finite_numbers_only(system, written):
    found = python(system, written, costs={"seconds": {}})
    text = json.dumps(found.to_dict(), allow_nan=False)
    row = json.loads(text)
    assert row["photos"] == 6
    assert row["metrics"]["seconds"] == {"unavailable": "no caption gives a finite value"}
    cider = row["metrics"]["cider_d"]
    assert cider["low"] < cider["value"] < cider["high"]
    assert cider["n"] == 6
    assert row["metrics"]["vocabulary"]["low"] is None
    assert row["tokenizer"] == "python"


def test_values_of_captions(system, written):
    found = python(system, written)
    rows = found.per_caption()
    assert [row["id"] for row in rows] == list(system)
    assert sum(row["cider_d"] for row in rows) / 6 == pytest.approx(found.metrics["cider_d"].value)
    assert rows[0]["vocabulary"] is None
    json.dumps(rows, allow_nan=False)


def test_rows_say_which_captions_were_cut(system, written):
    lm = load_model("mini-lm")
    found = score(system | {"cat": "a cat on a sofa " * 500}, written, metrics=["perplexity", "words"], lm=lm)
    cut = {row["id"]: row["cut"] for row in found.per_caption() if "cut" in row}
    assert cut == {"cat": ["perplexity_word", "perplexity_token"]}
    row = found.to_dict()["metrics"]["perplexity_word"]
    assert row["cut"] == 1
    assert "1 caption was cut" in row["note"]
    assert "perplexity / word, perplexity / token: 1 caption was cut" in found.table()
    assert (
        "cut"
        not in score(system, written, metrics=["perplexity"], lm=lm).to_dict()["metrics"]["perplexity_word"]
    )


def test_the_order_and_ids_do_not_matter(system, written):
    turned = dict(reversed(system.items()))
    first, second = (python(one, written) for one in (system, turned))
    for name, one in first.metrics.items():
        assert second.metrics[name].value == pytest.approx(one.value)


def test_no_resamples(system, written):
    found = python(system, written, resamples=0)
    assert found.metrics["cider_d"].low is None
    assert found.metrics["cider_d"].value > 0
    with pytest.raises(ConfigError, match="resamples must be at least 0, got -1"):
        python(system, written, resamples=-1)


def test_a_better_system_differs(made_up):
    predictions, references = made_up
    better = {id_: references[id_][0] for id_ in predictions}
    first, second = python(better, references), python(predictions, references)
    found = first.difference(second, "cider_d")
    assert found.value == pytest.approx(first.metrics["cider_d"].value - second.metrics["cider_d"].value)
    assert 0 < found.low < found.value < found.high
    same = first.difference(first, "bleu_4")
    assert (same.value, same.p_value) == (0, 1)
    assert math.isnan(first.difference(second, "vocabulary").low)


def test_what_cannot_be_compared(system, written):
    whole = python(system, written)
    del system["dog"]
    with pytest.raises(ConfigError, match="different photos"):
        whole.difference(python(system, written), "cider_d")
    with pytest.raises(ConfigError, match="no meteor: it was not requested"):
        whole.difference(whole, "meteor")


def test_the_table(system, written, monkeypatch):
    monkeypatch.setattr("promptfuse.evaluation.metrics.coco_java.find_java", lambda: None)
    del written["food"]
    del system["food"]
    written["spare"] = ["a photo"]
    found = score(system, written, tokenizer="python")
    lines = found.table().splitlines()
    assert lines[0].split() == ["metric", "value", "95%", "interval", "captions", "better"]
    (cider,) = [line for line in lines if line.startswith("CIDEr-D")]
    one = found.metrics["cider_d"]
    assert f"{one.value:.3f}  {one.low:.3f} .. {one.high:.3f}" in cider
    assert any(line.startswith("METEOR, SPICE: not available: no java") for line in lines)
    assert any(line.startswith("CLIPScore, RefCLIPScore: not available") for line in lines)
    assert lines[-1] == "1 of 6 photos have no prediction; the others are scored"


def test_python_words_for_lack_of_java_are_told(system, written, monkeypatch):
    monkeypatch.setattr("promptfuse.evaluation.metrics.java.find_java", lambda: None)
    found = score(system, written, metrics=["cider_d"])
    assert found.tokenizer == "python"
    assert "no java command found" in found.notices[0]


def test_progress_is_told(system, written):
    told: list[str] = []
    python(system, written, metrics=["cider_d", "words"], progress=told.append)
    assert told == ["cider_d", "words"]


def test_the_order_of_the_predictions_does_not_matter(made_up):
    system, written = made_up
    turned = dict(reversed(system.items()))
    first, second = python(system, written), python(turned, written)
    assert first.to_dict() == second.to_dict()
    assert second.difference(first, "cider_d").value == 0
    alone = [python(one, {}, metrics=["diversity"]).to_dict() for one in (system, turned)]
    assert alone[0] == alone[1]


@pytest.mark.parametrize(
    ("predictions", "references", "said"),
    [
        ({"1": ["a dog"]}, {"1": ["A dog"]}, "the prediction for '1' is not a text"),
        ({"1": None}, {"1": ["A dog"]}, "the prediction for '1' is not a text"),
        ({"1": "a dog"}, {"1": "A dog runs"}, "the references for '1' are one text"),
    ],
)
def test_texts_of_a_wrong_kind(predictions, references, said):
    with pytest.raises(ConfigError, match=said):
        python(predictions, references, metrics=["bleu_1"])


def test_an_empty_caption_has_no_label():
    tone = load_model("mini-tone")
    accuracies = [
        score({"1": "", "2": " "}, {}, metrics=["sentiment"], classifier=tone, label=label)
        .metrics["sentiment_accuracy"].value
        for label in tone.labels
    ]  # fmt: skip
    assert accuracies == [0.0] * len(tone.labels)


def test_a_metric_that_cannot_be_made_costs_its_own_columns_alone(system, monkeypatch):
    class Broken(Metric):
        titles: ClassVar[dict[str, str]] = {"depth": "depth", "breadth": "breadth"}

        @classmethod
        def create(cls, models):
            raise ConfigError("no scale given; give one")

        def measure(self, captions):
            raise AssertionError

    monkeypatch.setitem(registered._items, "broken", Broken)
    found = python(system, {}, metrics=None)
    for name, title in Broken.titles.items():
        assert found.metrics[name] == Unavailable(name, title, "no scale given; give one")
    assert found.metrics["words"].value > 0
    with pytest.raises(ConfigError, match="no scale given"):
        python(system, {}, metrics=["words", "depth"])
    tone = load_model("mini-tone")
    with pytest.raises(
        ConfigError, match="has no label 'joyful'"
    ):  # What the user gave is told all the same.
        python(system, {}, metrics=None, classifier=tone, label="joyful")

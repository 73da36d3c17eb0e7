from __future__ import annotations

import json
import math

import pytest

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics import Score, Unavailable, score
from promptfuse.evaluation.metrics.bootstrap import difference
from promptfuse.models import load_model
from promptfuse.report.runs import Judges, compare, load_runs, measure_runs
from promptfuse.report.runs.measure import LIKELY, OBJECTIVE, SIMILARITY, TERM
from promptfuse.report.runs.tables import standing

FAILED = {"text": None, "error": "cut short", "terms": {}, "weights": {}, "value": None}


def test_numbers_are_those_of_score(make_run):
    comparison = compare(load_runs([make_run("one", off=1, lines={4: FAILED}), make_run("two", off=4)]))
    measured = measure_runs(comparison)
    for number, run in enumerate(comparison.runs):
        texts = {id_: run.predictions[id_].text for id_ in comparison.ids}
        wanted = score(texts, comparison.references, metrics=["bleu", "rouge_l", "cider_d", "words"])
        assert len(wanted.metrics) > 6
        for name, one in wanted.metrics.items():
            assert measured.scores[number][name] == one
    assert measured.score(1, "cider_d").value != measured.score(0, "cider_d").value


def test_differences_are_paired(make_run):
    measured = measure_runs(compare(load_runs([make_run("one", off=1), make_run("two", off=4)])))
    found = measured.difference(1, 0, "cider_d")
    columns = [columns["cider_d"] for columns in measured.columns]
    wanted = difference(columns[1], columns[0])
    assert (found.value, found.low, found.high) == (wanted.value, wanted.low, wanted.high)
    assert found.value != 0


def test_the_objective_has_the_first_runs_weights(make_run):
    first = make_run("one", fluency=2.0, image=0.6)
    second = make_run("two", weights={"fluency": 5.0, "image": 1.0}, fluency=1.0, image=0.7)
    measured = measure_runs(compare(load_runs([first, second])))
    means = [[measured.score(run, TERM + name).value for name in ("fluency", "image")] for run in (0, 1)]
    assert means[1] == pytest.approx([1.055, 0.755])
    for run in (0, 1):
        wanted = means[run][0] + 10 * means[run][1]
        assert measured.score(run, OBJECTIVE).value == pytest.approx(wanted)
        assert measured.score(run, SIMILARITY).value == pytest.approx(1 - means[run][1])
    assert any("weights of one: fluency 1, image 10" in note for note in measured.notes)
    assert any("searched with" in warning for warning in measured.warnings)


def test_a_run_without_a_term_has_no_objective(make_run):
    runs = [make_run("one"), make_run("two", weights={"fluency": 1.0})]
    measured = measure_runs(compare(load_runs(runs)))
    found = measured.scores[1][OBJECTIVE]
    assert isinstance(found, Unavailable)
    assert "two has no term image" in found.reason
    assert measured.score(0, OBJECTIVE) is not None
    assert measured.score(1, SIMILARITY) is None


def test_labels_are_likely_below_the_logarithm_of_two(make_run):
    weights = {"sentiment": 2.0, "steer:formal": -1.0}
    lines = {
        number: {"terms": {"sentiment": 0.1 if number < 9 else 3.0, "steer:formal": 0.5}}
        for number in range(12)
    }
    measured = measure_runs(compare(load_runs([make_run("one", weights=weights, lines=lines)])))
    assert measured.score(0, f"{LIKELY}sentiment").value == pytest.approx(0.75)
    assert measured.score(0, f"{LIKELY}steer:formal").value == 1.0
    assert measured.score(0, f"{LIKELY}sentiment").better == "higher"
    # A negative weight keeps away from the label.
    assert measured.score(0, f"{LIKELY}steer:formal").better == "lower"
    assert measured.score(0, f"{TERM}steer:formal").better == "higher"


def test_what_it_cost(make_run):
    measured = measure_runs(compare(load_runs([make_run("one")])))
    assert measured.score(0, "seconds").value == pytest.approx(0.5 + 0.01 * 5.5)
    assert measured.score(0, "exact_evaluations").value == pytest.approx(105.5)
    assert measured.names()[-2:] == ["seconds", "exact_evaluations"]


def test_what_is_left_out_says_why(make_run):
    measured = measure_runs(compare(load_runs([make_run("one")])))
    for name, option in {
        "meteor": "--java",
        "spice": "--java",
        "clipscore": "--clip",
        "perplexity_word": "--lm",
        "sentiment_accuracy": "--classifier",
        "judged": "--judge-texts",
    }.items():
        found = measured.scores[0][name]
        assert isinstance(found, Unavailable)
        assert option in found.reason


@pytest.mark.parametrize("name", ["sentiment", "sentiment_accuracy"])
def test_accuracy_that_was_asked_for_without_a_classifier_says_so(make_run, name):
    measured = measure_runs(compare(load_runs([make_run("one")])), metrics=["cider_d", name])
    found = measured.scores[0]["sentiment_accuracy"]
    assert isinstance(found, Unavailable)
    assert found.reason == "no model given; --classifier adds it"


def test_metrics_by_name(make_run):
    measured = measure_runs(compare(load_runs([make_run("one")])), metrics=["cider_d"], resamples=0)
    assert "bleu_4" not in measured.names()
    found = measured.score(0, "cider_d")
    assert isinstance(found, Score)
    assert (found.low, found.high) == (None, None)


def test_without_references_the_rest_is_there(make_run):
    measured = measure_runs(compare(load_runs([make_run("one", manifest={"data": {}})])))
    assert isinstance(measured.scores[0]["cider_d"], Unavailable)
    assert "references" in measured.scores[0]["cider_d"].reason
    assert measured.score(0, OBJECTIVE) is not None
    assert measured.score(0, "words") is not None


def test_no_photo_captioned_by_all(make_run):
    lost = dict.fromkeys(range(12), FAILED)
    measured = measure_runs(compare(load_runs([make_run("one"), make_run("two", lines=lost)])))
    assert measured.names() == []
    assert any("no numbers" in note for note in measured.notes)


def test_judges_that_were_searched_with_are_told(make_run, checkpoint):
    clip, tone, lm = (load_model(checkpoint(kind)) for kind in ("clip", "bert", "gpt2"))
    models = {"image": {"name": clip.name, "fingerprint": clip.fingerprint}}
    runs = [make_run("one", manifest={"models": models}), make_run("two", off=1)]
    comparison = compare(load_runs(runs))
    label = tone.labels[0]
    measured = measure_runs(comparison, Judges(clip, lm, tone, (label,)))
    for name in ("clipscore", "refclipscore", "perplexity_word", f"sentiment_accuracy.{label}"):
        assert math.isfinite(measured.score(1, name).value)
    told = [warning for warning in measured.warnings if "judge by another" in warning]
    assert len(told) == 1
    assert "CLIPScore's model" in told[0]
    assert "captions of one, so it favours them" in told[0]
    texts = {id_: comparison.runs[1].predictions[id_].text for id_ in comparison.ids}
    images = {id_: comparison.image(id_) for id_ in comparison.ids}
    wanted = score(texts, comparison.references, metrics=["clipscore"], images=images, clip=clip)
    assert measured.score(1, "clipscore").value == pytest.approx(wanted.metrics["clipscore"].value, abs=1e-5)


def test_labels_are_those_of_the_runs(make_run, checkpoint):
    tone = load_model(checkpoint("bert"))
    first, second = tone.labels[:2]
    plain = make_run("plain")
    coloured = make_run("coloured", manifest={"recipe": {"sentiment": second.lower()}})
    steered = make_run("steered", manifest={"recipe": {"steer": [f"tone:{first}=2.0", "other:loud=1.0"]}})
    runs = load_runs([plain, coloured, steered])
    measured = measure_runs(compare(runs), Judges(classifier=tone), metrics=["cider_d", "sentiment"])
    # Every run is asked for every label, so that the plain one is where the curves begin.
    names = [f"sentiment_accuracy.{label}" for label in (second, first)]
    assert [name for name in measured.names() if name.startswith("sentiment")] == names
    texts = {id_: runs[0].predictions[id_].text for id_ in measured.comparison.ids}
    for label, name in zip((second, first), names, strict=True):
        wanted = score(texts, {}, metrics=["sentiment"], classifier=tone, label=label)
        assert measured.score(0, name) == wanted.metrics["sentiment_accuracy"]
    with pytest.raises(ConfigError, match="give one by --label"):
        measure_runs(compare(runs[:1]), Judges(classifier=tone))


def test_runs_with_different_models_are_told(make_run):
    other = {"models": {"fluency": {"name": "other-lm", "fingerprint": "f2"}}}
    measured = measure_runs(compare(load_runs([make_run("one"), make_run("two", manifest=other)])))
    assert "different models as fluency (tiny-lm, other-lm)" in measured.warnings[0]


@pytest.mark.slow
def test_models_are_told_apart_by_all_their_weights(make_run):
    def made(name, identity, **manifest):
        model = {"name": "tiny-lm", "fingerprint": "f1"} | ({"identity": identity} if identity else {})
        return make_run(name, manifest={"models": {"fluency": model}, **manifest})

    def told(*folders):
        return measure_runs(compare(load_runs(folders))).warnings

    first, merged, old = made("first", "a1"), made("merged", "b2"), made("old", None)
    assert "different models as fluency (tiny-lm a1, tiny-lm b2)" in told(first, merged)[0]
    assert "fluency (tiny-lm) is unknown" in told(first, old)[0]
    assert not any("fluency" in line or "again" in line for line in told(first, made("again", "a1")))
    mixed = made("mixed", "a1", sessions=[{"models": {"fluency": "a1"}}, {"models": {"fluency": "b2"}}])
    assert "captions of mixed were found with different models as fluency" in told(mixed)[0]
    twice = [{"photos": 3}, {"photos": 9}]
    assert "old-twice was resumed by an earlier version" in told(made("old-twice", None, sessions=twice))[0]
    once = made("whole", "a1", sessions=[{"models": {"fluency": "a1"}}, {"models": {"fluency": "a1"}}])
    assert not any("whole" in line for line in told(once))


def test_json_has_no_nan(make_run):
    lines = {number: {"terms": {"fluency": math.nan}} for number in range(12)}
    comparison = compare(load_runs([make_run("one", lines=lines), make_run("two")]))
    measured = measure_runs(comparison)
    found = json.loads(json.dumps(measured.to_dict(), allow_nan=False))
    assert found["runs"][0]["metrics"]["terms.fluency"]["value"] is None
    assert found["runs"][1]["metrics"]["cider_d"]["low"] is not None
    assert found["runs"][1]["differences"]["cider_d"]["value"] == 0
    assert found["runs"][0]["differences"] == {}


@pytest.mark.parametrize("named", [True, False])
def test_a_plain_installation_reports_what_it_can(make_run, monkeypatch, named):
    monkeypatch.setattr("promptfuse.evaluation.metrics.java.importlib.util.find_spec", lambda name: None)
    comparison = compare(load_runs([make_run("one")]))
    if named:
        with pytest.raises(ConfigError, match="pycocoevalcap"):
            measure_runs(comparison, metrics=["cider_d"], resamples=0)
        return
    found = measure_runs(comparison, resamples=0)
    assert "pycocoevalcap" in found.scores[0]["cider_d"].reason
    assert found.score(0, "words") is not None
    assert found.score(0, "objective") is not None


@pytest.mark.parametrize("written", [True, False])
def test_numbers_stay_with_their_photos_in_any_order(make_run, references, written):
    """Lines of a run come in any order, and ids have one of their own."""
    texts = ["a happy wonderful day", "a sad awful day of rain", "a dog"]
    lines = {number: {"text": text} for number, text in enumerate(texts)}
    run = make_run("one", lines=lines, numbers=(2, 0, 1))
    if not written:
        references.unlink()
    tone = load_model("mini-tone")
    comparison = compare(load_runs([run]))
    measured = measure_runs(comparison, Judges(classifier=tone, labels=("positive",)), resamples=0)
    columns = measured.columns[0]
    by_id = {
        id_: (columns["words"].values[place], columns["sentiment_accuracy.positive"].values[place])
        for place, id_ in enumerate(comparison.ids)
    }
    assert list(comparison.ids) == ["p0", "p1", "p2"]
    assert {id_: words for id_, (words, _) in by_id.items()} == {"p0": 4, "p1": 6, "p2": 2}
    assert (by_id["p0"][1], by_id["p1"][1]) == (1, 0)


def test_labels_that_captions_were_kept_away_from_are_not_looked_for(make_run):
    steers = ["mini-tone:negative=-2", "mini-tone:positive=1"]
    (run,) = load_runs([make_run("one", manifest={"recipe": {"steer": steers}})])
    assert run.labels == ["positive"]


def test_a_sentiment_is_spelled_as_the_preset_does(make_run):
    manifest = {"recipe": {"sentiment": "positive"}, "preset": {"labels": {"positive": "LABEL_2"}}}
    (run,) = load_runs([make_run("one", manifest=manifest)])
    assert run.labels == ["LABEL_2"]


def test_what_runs_were_searched_for_in_opposite_ways_is_not_better(make_run):
    weights = {"fluency": 1.0, "steer:negative": 2.0}
    away = make_run("away", weights={**weights, "steer:negative": -2.0}, **{"steer:negative": 3.0})
    to = make_run("to", weights=weights, **{"steer:negative": 0.1})
    measured = measure_runs(compare(load_runs([away, to])), resamples=100)
    for name in ("likely.steer:negative", "terms.steer:negative"):
        assert measured.better(name) == "neither"
        assert not standing(measured, name).best
    assert measured.better("terms.fluency") == "lower"


def test_equal_numbers_are_equally_good(make_run):
    runs = [make_run("one"), make_run("two"), make_run("three", off=1)]
    measured = measure_runs(compare(load_runs(runs)), resamples=100)
    assert standing(measured, "cider_d").best == {0, 1}

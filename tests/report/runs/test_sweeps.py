from __future__ import annotations

import pytest

from promptfuse.models import load_model
from promptfuse.report.runs import Judges, compare, load_runs, measure_runs
from promptfuse.report.runs.sweeps import Sweep, find_sweeps, sweep_plots

BASE = {"kind": "search", "beams": 4}


@pytest.fixture
def runs_of(make_run):
    """Runs with these recipes."""

    def make(*recipes, **options):
        folders = [
            make_run(f"run{number}", manifest={"recipe": recipe}, **options)
            for number, recipe in enumerate(recipes)
        ]
        return load_runs(folders)

    return make


def test_runs_that_differ_in_one_number(runs_of):
    runs = runs_of({**BASE, "beams": 8}, {**BASE, "beams": 2}, {**BASE, "beams": 4, "prefix": "A"})
    assert find_sweeps(runs) == [Sweep("beams", "runs that differ in nothing else", "", [(2.0, 1), (8.0, 0)])]


def test_sweeps_over_one_setting_have_names(runs_of):
    recipes = [
        {**BASE, "sentiment": label, "sentiment_weight": weight}
        for label in ("positive", "negative")
        for weight in (1, 3)
    ]
    found = find_sweeps(runs_of(*recipes))
    assert [(one.setting, one.name) for one in found] == [
        ("sentiment_weight", "positive"),
        ("sentiment_weight", "negative"),
    ]
    assert found[1].steps == [(1.0, 2), (3.0, 3)]


def test_a_plain_run_is_at_weight_zero(runs_of):
    recipes = [{**BASE, "sentiment": "positive", "sentiment_weight": weight} for weight in (1, 3)]
    (found,) = find_sweeps(runs_of(*recipes, BASE, {**BASE, "prefix": "A"}))
    assert found.steps == [(0.0, 2), (1.0, 0), (3.0, 1)]


def test_one_weight_and_a_plain_run(runs_of):
    (found,) = find_sweeps(runs_of({**BASE, "sentiment": "positive", "sentiment_weight": 1}, BASE))
    assert found.steps == [(0.0, 1), (1.0, 0)]


def test_steers_and_weights_of_presets(runs_of):
    steers = [{**BASE, "steer": [f"mini-tone:positive={weight}"]} for weight in (0.5, 2)]
    (found,) = find_sweeps(runs_of(*steers, BASE))
    assert found.setting == "steer.mini-tone:positive"
    assert found.label == "positive"
    assert found.steps == [(0.0, 2), (0.5, 0), (2.0, 1)]


def test_the_weight_that_a_preset_gives(make_run):
    coloured = {**BASE, "sentiment": "positive"}
    own = {"fluency": 1.0, "image": 10.0, "sentiment": 7.0}
    folders = [
        make_run("preset", manifest={"recipe": coloured}, weights=own),
        make_run("given", manifest={"recipe": {**coloured, "sentiment_weight": 2.0}}),
    ]
    (found,) = find_sweeps(load_runs(folders))
    assert found.steps == [(2.0, 1), (7.0, 0)]


def test_runs_that_differ_in_more_are_no_sweep(runs_of):
    runs = runs_of({**BASE, "beams": 8, "steps": 3}, {**BASE, "beams": 2, "steps": 4}, {"kind": "samples"})
    assert find_sweeps(runs) == []
    assert sweep_plots(measure_runs(compare(runs))) == ""


def test_curves_of_a_weight(make_run):
    folders = []
    for weight in (1, 2, 4):
        recipe = {**BASE, "sentiment": "positive", "sentiment_weight": weight}
        weights = {"fluency": 1.0, "image": 10.0, "sentiment": float(weight)}
        folders.append(
            make_run(f"w{weight}", off=weight, manifest={"recipe": recipe}, weights=weights, sentiment=0.3)
        )
    html = sweep_plots(measure_runs(compare(load_runs(folders))))
    assert html.count("<svg") == 2
    assert "sentiment likely (searched model) against image similarity as sentiment_weight grows" in html
    assert "sentiment likely (searched model) against CIDEr-D as sentiment_weight grows" in html
    for weight in ("1", "2", "4"):
        assert html.count(f">{weight}</text></g>") == 2
    assert html.count("stroke-dasharray") == 2


def test_curves_of_two_labels_by_a_judge(make_run, checkpoint):
    tone = load_model(checkpoint("bert"))
    labels = tone.labels[:2]
    folders = [make_run("plain", manifest={"recipe": BASE})]
    for label in labels:
        for weight in (1, 2):
            recipe = {**BASE, "sentiment": label.lower(), "sentiment_weight": weight}
            folders.append(make_run(f"{label}{weight}", off=weight, manifest={"recipe": recipe}))
    html = sweep_plots(measure_runs(compare(load_runs(folders)), Judges(classifier=tone)))
    assert "share with the label against image similarity as sentiment_weight grows" in html
    # Both curves begin at the plain run.
    assert html.count(">0</text></g>") == 4
    assert all(f"</i>{label.lower()}</span>" in html for label in labels)


def test_curves_of_another_setting(make_run):
    folders = [make_run(f"b{n}", off=n, manifest={"recipe": {**BASE, "beams": n}}) for n in (1, 4, 9)]
    html = sweep_plots(measure_runs(compare(load_runs(folders))))
    assert "CIDEr-D as beams grows" in html
    assert "objective as beams grows" in html
    # Two runs are two points, not a curve.
    assert sweep_plots(measure_runs(compare(load_runs(folders[:2])))) == ""


def test_settings_are_no_markup(runs_of):
    steers = [{**BASE, "steer": [f"org/m:<b>&={weight}"]} for weight in (0.5, 2)]
    runs = runs_of(*steers, BASE)
    plots = "".join(sweep_plots(measure_runs(compare(runs), metrics=["words"])))
    assert "<b>&" not in plots


def test_weight_zero_of_one_of_two_steers_has_the_other(runs_of):
    steers = [[], ["mini-tone:negative=1.0"], *(
        ["mini-tone:negative=1.0", f"mini-tone:positive={weight}"] for weight in (1.0, 2.0)
    )]  # fmt: skip
    recipes = [{**BASE, "steer": steer} if steer else BASE for steer in steers]
    found = {sweep.setting: sweep.steps for sweep in find_sweeps(runs_of(*recipes))}
    assert found["steer.mini-tone:positive"] == [(0.0, 1), (1.0, 2), (2.0, 3)]
    assert found["steer.mini-tone:negative"] == [(0.0, 0), (1.0, 1)]

"""Time to a value: the figures by hand, and a small run that goes on where it stopped."""

import json
import math
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import time_to_value
from benchmarks.time_to_value import compare, medians, read_course, seconds_to

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def test_a_value_is_reached_at_the_first_step_that_has_it():
    course = read_course({"course": [[1.0, None], [2.0, 5.0], [3.0, 4.0], [4.0, 4.0]]})
    assert course[0][1] == math.inf
    assert seconds_to(course, 5.5) == 2.0
    assert seconds_to(course, 4.0) == 3.0
    assert seconds_to(course, 3.9) == math.inf


def test_medians_go_by_steps_and_a_search_that_ended_stays():
    courses = [[(1.0, 9.0)], [(2.0, 8.0), (4.0, 6.0)], [(3.0, 7.0), (5.0, 5.0), (6.0, 1.0)]]
    assert medians(courses) == [(2.0, 8.0), (4.0, 6.0), (4.0, 6.0)]


def test_figures_by_hand():
    reference = [[(10.0, 9.0), (20.0, 6.0), (40.0, 6.0)], [(10.0, 9.0), (20.0, 8.0), (40.0, 4.0)]]
    own = [[(1.0, 7.0), (2.0, 5.0), (4.0, 5.0)], [(1.0, 7.0), (2.0, 5.0), (4.0, 4.5)]]
    found = compare(own, reference)
    assert (found["goal"], found["value"]) == (5.0, 4.75)
    assert (found["seconds_to_goal"], found["reference_seconds_to_goal"]) == (2.0, 40.0)
    assert found["reference_seconds"] == 40.0
    assert (found["times_faster_to_goal"], found["times_faster_than_whole"]) == (20.0, 20.0)
    assert found["reached"] == 0.5
    assert found["times_faster_where_reached"] == 10.0
    none = compare([[(1.0, 9.0)], [(1.0, 9.0)]], reference)
    assert (none["seconds_to_goal"], none["times_faster_to_goal"]) == (None, 0.0)
    assert (none["reached"], none["times_faster_where_reached"]) == (0.0, None)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    photos = sorted(PHOTOS.glob("*.jpg"))[:2]
    for photo in photos:
        shutil.copy(photo, folder / "images")
    rows = [{"file": photo.name, "split": "dev"} for photo in photos]
    (folder / "captions.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_run_and_one_that_goes_on(data, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    asked = ["time", "--flickr8k", str(data), "--out", str(out), "--candidates", "2", "--most", "4"]
    asked += ["--steps", "16", "--json"]

    def rows(photos):
        monkeypatch.setattr(sys, "argv", [*asked, "--photos", photos])
        time_to_value.main()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    rows("1")
    first = (out / "lexical-2.jsonl").read_text(encoding="utf-8")
    reference, own = rows("2")
    assert (out / "lexical-2.jsonl").read_text(encoding="utf-8").startswith(first)
    assert (reference["transport"], reference["reached"]) == ("none", 1.0)
    assert reference["times_faster_where_reached"] == 1.0
    assert reference["value"] == reference["goal"] == own["goal"]
    assert (own["transport"], own["candidates"], own["photos"]) == ("lexical", 2, 2)
    course = json.loads(first)["course"]
    assert course == sorted(course, key=lambda step: step[0])
    values = [value for _, value in course if value is not None]
    assert values == sorted(values, reverse=True)

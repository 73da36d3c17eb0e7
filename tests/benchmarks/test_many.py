"""The comparison of one photo at a time with several, in small."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import many

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


@pytest.mark.slow
def test_it_prints_all_rates(capsys, monkeypatch):
    asked = ["many", str(PHOTOS), "--photos", "3", "--in-flight", "2", "--workers", "2", "--json"]
    monkeypatch.setattr(sys, "argv", asked)
    many.main()
    row = json.loads(capsys.readouterr().out)
    assert (row["photos"], row["workers"], row["equal_texts"]) == (3, 2, 3)
    assert row["max_abs_difference"] < 1e-4
    assert row["one_at_a_time_per_minute"] > 0
    assert row["together_times"] > 0

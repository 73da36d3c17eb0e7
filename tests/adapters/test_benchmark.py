"""The benchmark's references: they must give what ours gives, or the ratio means nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*arguments):
    command = [sys.executable, "-m", "benchmarks.adapter_fit", "--threads", "1", "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["bcirc", "blocks"])
def test_both_ways_give_the_same_map(reference):
    size = ("--words", "300", "--widths", "12", "7", "--subtokens", "1", "3")
    rows = bench("--reference", reference, *size)
    assert [row["subtokens"] for row in rows] == [1, 3]
    for row in rows:
        assert row["difference"] < 1e-5 < row["largest"]
        assert row["ratio"] == pytest.approx(row["reference_seconds"] / row["seconds"])


@pytest.mark.slow
def test_scaling_has_a_row_for_each_count():
    rows = bench("--scaling", "--widths", "8", "6", "--counts", "200", "400")
    assert [row["words"] for row in rows] == [200, 400]
    assert all(row["seconds"] > 0 for row in rows)

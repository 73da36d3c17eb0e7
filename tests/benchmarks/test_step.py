"""The benchmarks of a step, on tiny models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def bench(name: str, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--tiny", "--threads", "1", "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_step_is_measured_against_the_naive_path() -> None:
    (row,) = bench(
        "step", "--beams", "2", "--candidates", "9", "--words", "4", "--steps", "2", "--naive", "6"
    )
    assert row["candidates"] == 18
    assert row["naive_timed"] == 6
    assert row["max_abs_difference"] < 1e-4
    assert row["times_naive"] == pytest.approx(row["naive_seconds"] / row["seconds"])
    assert row["times_floor"] == pytest.approx(row["seconds"] / row["floor_seconds"])
    assert row["floor_seconds"] == pytest.approx(row["gflop"] / row["gflop_per_second"])
    assert row["gflop"] > 0


def test_scaling_has_a_row_for_each_point_and_a_plot(tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    rows = bench(
        "scaling", "--words", "4", "8", "--candidates", "8", "16", "--models", "1", "2", "--steps", "1",
        "--plot", str(plot),
    )  # fmt: skip
    points = [(row["curve"], row[row["curve"]]) for row in rows]
    assert points == [
        ("words", 4), ("words", 8), ("candidates", 8), ("candidates", 16), ("models", 1), ("models", 2),
    ]  # fmt: skip
    assert [row["scored"] for row in rows if row["curve"] == "candidates"] == [16, 32]
    assert plot.read_bytes().startswith(b"\x89PNG")

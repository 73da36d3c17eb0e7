"""The benchmarks of a step, on tiny models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.rates import Rates, ShapesOf, Work, floor_rate
from promptfuse.models.fast.products import fast_linear, has_onednn

ROOT = Path(__file__).parents[2]


def bench(name: str, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--tiny", "--threads", "1", "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
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
    # A floor is one: no step is faster than its own.
    assert min(row["each_times_floor"]) >= 1
    assert row["gflop_per_second"] >= row["gflop_per_second_torch"]
    assert row["rate_of"]
    # The plain batched path scores the same texts with the same losses.
    assert row["max_abs_difference_batched"] < 1e-4
    assert row["times_batched"] == pytest.approx(row["batched_seconds"] / row["seconds"])
    assert row["times_batched_onednn"] == pytest.approx(row["batched_onednn_seconds"] / row["seconds"])


def test_the_floor_is_the_best_rate_of_all() -> None:
    products = (100.0, "a block, oneDNN")
    assert floor_rate(products, [(2.0, 150.0), (1.0, 90.0)]) == products
    # A step that multiplies faster than anything measured by itself is a rate that was seen.
    rate, where = floor_rate(products, [(2.0, 150.0), (1.0, 120.0)])
    assert (rate, where) == (120.0, "a step itself")


def test_rates_keep_the_best_of_every_shape_and_library() -> None:
    ticks = iter(range(10_000))
    works = [Work("small", [(4, 8, 8)]), Work("pair", [(4, 8, 16), (4, 16, 8)])]
    assert [work.flops for work in works] == [2 * 4 * 64, 2 * 2 * 4 * 128]
    rates = Rates(works, lambda: float(next(ticks)))  # Each run takes one tick of this clock.
    assert rates.best() == (2048.0, "pair, torch")
    assert rates.best("oneDNN") == (2048.0, "pair, oneDNN")
    rates.again()
    assert rates.best()[0] == 2048.0


def test_shapes_are_those_of_the_products_that_are_run() -> None:
    has_onednn()  # It finds out by a product of its own, once.
    layer = torch.nn.Linear(6, 5)
    with torch.no_grad(), ShapesOf() as found:
        layer(torch.randn(3, 6))
        layer(torch.randn(3, 6))
        torch.randn(2, 7) @ torch.randn(7, 100)
        fast_linear(layer, torch.randn(4, 6))
    assert found.counted == {(3, 6, 5): 2, (2, 7, 100): 1, (4, 6, 5): 1}
    assert found.dearest(1) == [(2, 7, 100)]


@pytest.mark.slow
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

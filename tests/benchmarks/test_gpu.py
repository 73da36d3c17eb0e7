"""The benchmark for a GPU, in small on the CPU."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import shapes
from benchmarks.gpu import counter
from benchmarks.gpu_check import check, make_objective
from promptfuse.models.fast.products import fast_linear, has_onednn

ROOT = Path(__file__).parents[2]
needs_timeout = pytest.mark.skipif(
    None in (shutil.which("bash"), shutil.which("timeout")), reason="needs bash and coreutils' timeout"
)
SMALL = (
    "--device cpu --threads 1 --photos 2 --together 2 --steps 2 --beams 2 --candidates 3 --tiny --json"
).split()


@pytest.mark.slow
def test_small_on_the_cpu():
    command = [sys.executable, "-m", "benchmarks.gpu", *SMALL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    half, single, compared = [json.loads(line) for line in done.stdout.splitlines()]
    assert [half["dtype"], single["dtype"]] == ["bf16", "fp32"]
    for row in (half, single):
        assert row["steps_taken"] == 2
        # One beam in the first step, two in the second, three candidates each, for two photos.
        assert row["exact_evaluations"] == 2 * (3 + 6)
        assert row["captions_per_second"] == pytest.approx(2 / row["seconds"])
        assert 0 < row["share_of_rate"] < 1
    # The products depend on the shapes, and but for how words are cut into tokens not on the type.
    assert half["gflop_per_caption"] == pytest.approx(single["gflop_per_caption"], rel=0.3)
    assert compared["texts"] == 2
    assert compared["within_tolerance"]
    assert "needs a GPU" in done.stderr


@pytest.mark.parametrize("apply", [fast_linear, lambda module, inputs: module(inputs)])
def test_products_are_counted_whatever_library_runs_them(apply):
    has_onednn()  # It finds out by a product of its own, once.
    module = torch.nn.Linear(8, 4)
    with torch.no_grad(), counter() as counted:
        apply(module, torch.randn(3, 8))
    assert counted.get_total_flops() == 2 * 3 * 8 * 4


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_in_one_line():
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cuda"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("leave --device out to run small on the CPU")


@pytest.mark.slow
@needs_timeout
def test_the_script_for_a_gpu_runs_dry(tmp_path: Path) -> None:
    """All stages, tiny, on the CPU; results of each, and how each ended."""
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "BUDGET": "6000",
        "PATIENCE": "9",
        "OMP_NUM_THREADS": "1",
    }
    command = ["bash", "benchmarks/gpu.sh", "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["device"], summary["dry_run"]) == ("cpu", True)
    stages = summary["stages"]
    assert list(stages) == ["machine", "check", "step", "captions-bf16", "captions-fp32", "tests"]
    for name, stage in stages.items():
        assert stage["exit_code"] == 0, name
        # A line when it begins and a line when it ends.
        assert done.stdout.count(f"] {name}: ") == 2
    assert [row["check"] for row in stages["check"]["rows"]] == ["bf16", "fp32"]
    for row in stages["check"]["rows"]:
        assert row["texts"] >= 3
        assert row["within_tolerance"]
        assert set(row["max_abs_difference"]) == {"fast_exact", "exact_cpu"}
    assert [row["dtype"] for row in stages["step"]["rows"]] == ["bf16", "fp32"]
    assert all(row["seconds_a_step"] > 0 < row["texts_a_second"] for row in stages["step"]["rows"])
    for dtype in ("bf16", "fp32"):
        (row,) = stages[f"captions-{dtype}"]["rows"]
        assert row["dtype"] == dtype
        assert row["captions_per_second"] > 0
    assert "2 passed" in (tmp_path / "tests.txt").read_text()


@needs_timeout
def test_the_script_keeps_what_there_is_when_time_is_up(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "BUDGET": "0"}
    command = ["bash", "benchmarks/gpu.sh", "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    stages = json.loads((tmp_path / "summary.json").read_text())["stages"]
    assert {stage["exit_code"] for stage in stages.values()} == {124}
    assert done.stdout.count("no time left") == 6


def test_the_check_of_values_sees_a_difference() -> None:
    size = shapes.TINY
    args = argparse.Namespace(device="cpu", steps=1, beams=2, candidates=3)
    reference = make_objective(size, "cpu", torch.float32)
    assert check("fp32", size, reference, args)["within_tolerance"]
    with torch.no_grad():
        next(reference.terms["fluency"].model.module.parameters()).mul_(1.5)
    row = check("fp32", size, reference, args)
    assert not row["within_tolerance"]
    assert row["max_abs_difference"]["fast_exact"]["fluency"] < 1e-3


@pytest.mark.parametrize("given", [["--fast"], ["--device", "abacus"]])
def test_the_script_says_what_it_does_not_know(given: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["bash", "benchmarks/gpu.sh", *given, "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert given[-1] in done.stderr
    assert len(done.stderr.splitlines()) == 1

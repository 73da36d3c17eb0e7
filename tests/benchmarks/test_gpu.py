"""The benchmark for a GPU, in small on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import counter
from promptfuse.models.products import has_onednn, linear

ROOT = Path(__file__).parents[2]
SMALL = (
    "--device cpu --threads 1 --photos 2 --together 2 --steps 2 --beams 2 --candidates 3 --tiny --json"
).split()


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


@pytest.mark.parametrize("apply", [linear, lambda module, inputs: module(inputs)])
def test_products_are_counted_whatever_library_runs_them(apply):
    has_onednn()  # It finds out by a product of its own, once.
    module = torch.nn.Linear(8, 4)
    with torch.no_grad(), counter() as counted:
        apply(module, torch.randn(3, 8))
    assert counted.get_total_flops() == 2 * 3 * 8 * 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_in_one_line():
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cuda"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("leave --device out to run small on the CPU")

"""What keeps the memory of long runs flat, seen from outside: a process that always meets new shapes."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from promptfuse.memory import keep_memory_flat, peak_memory
from promptfuse.models.products import has_onednn

SHAPES = """
import json, sys, torch
from promptfuse.memory import give_memory_back, keep_memory_flat
if sys.argv[1] == "flat":
    keep_memory_flat()
torch.set_num_threads(1)
weight = torch.ops.mkldnn._reorder_linear_weight(torch.randn(512, 256), 64)

def resident():
    give_memory_back()
    return int(open("/proc/self/statm").read().split()[1]) * 4096

sizes = []
for rows in range(1, 801):
    torch.ops.mkldnn._linear_pointwise(torch.randn(rows, 256), weight, None, "none", [], "")
    if rows % 200 == 0:
        sizes.append(resident())
print(json.dumps(sizes))
"""


def test_what_somebody_has_set_stays(monkeypatch):
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    keep_memory_flat()
    assert os.environ["LRU_CACHE_CAPACITY"] == "7"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "128"
    assert peak_memory() > 10**8


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the resident size is read from /proc")
@pytest.mark.skipif(not has_onednn(), reason="oneDNN is not asked here")
def test_products_of_new_shapes_take_no_more_memory_in_the_end():
    def grown(how):
        done = subprocess.run(
            [sys.executable, "-c", SHAPES, how], capture_output=True, text=True, check=True, env=ENVIRONMENT
        )
        sizes = json.loads(done.stdout)
        return (sizes[-1] - sizes[0]) / 2**20

    flat, plain = grown("flat"), grown("plain")
    assert flat < max(3.0, plain / 4), (flat, plain)


FAULTS = """
import resource, torch
from promptfuse.memory import reuse_memory
reuse_memory()

def touch():
    for rows in (1546, 525, 1560, 1530):
        held = [torch.zeros(rows, 512) for _ in range(6)] + [torch.zeros(rows, 2048) for _ in range(2)]
        del held

for _ in range(12):  # The heap takes its final form.
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told so")
def test_freed_memory_is_used_again():
    # Without it most processes, though not all, have some 80,000; with it 0 to 2,000. It depends on where the
    # heap begins.
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10_000


ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
}

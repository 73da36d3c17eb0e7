"""What keeps the memory of long runs flat, seen from outside: a process that always meets new shapes."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from promptfuse._utils.memory import available_memory, keep_memory_flat, peak_memory
from promptfuse.models.fast.products import has_onednn

SHAPES = """
import json, sys, torch
from promptfuse._utils.memory import give_memory_back, keep_memory_flat
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


GIB = 2**30


def write_system(folder, *, free, available, group="", files=()):
    """Files as the kernel has them, of a machine and its control groups."""
    files = {
        "proc/meminfo": f"MemTotal: {64 * 2**20} kB\nMemFree: {free // 1024} kB\n"
        f"MemAvailable: {available // 1024} kB\n",
        "proc/self/cgroup": group,
        **dict(files),
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return available_memory(folder / "proc", folder / "groups")


def test_a_full_cache_of_files_is_available_memory(tmp_path):
    assert write_system(tmp_path, free=GIB // 4, available=40 * GIB) == 40 * GIB


def group_files(folder, *, limit, used, cached):
    return {
        f"groups/{folder}memory.max": f"{limit}\n",
        f"groups/{folder}memory.current": f"{used}\n",
        f"groups/{folder}memory.stat": f"anon 5\nactive_file 7\ninactive_file {cached}\n",
    }


@pytest.mark.parametrize("limit", ["max", 8 * GIB])
def test_the_limit_of_a_container_holds(limit, tmp_path):
    files = group_files("", limit=limit, used=7 * GIB, cached=3 * GIB)
    found = write_system(tmp_path, free=30 * GIB, available=40 * GIB, group="0::/\n", files=files)
    assert found == (40 * GIB if limit == "max" else 4 * GIB)


def test_the_limits_of_the_groups_above_hold_too(tmp_path):
    files = group_files("a/b/", limit=9 * GIB, used=1 * GIB, cached=0)
    files |= group_files("a/", limit=6 * GIB, used=4 * GIB, cached=GIB)
    found = write_system(tmp_path, free=30 * GIB, available=40 * GIB, group="0::/a/b\n", files=files)
    assert found == 3 * GIB


@pytest.mark.parametrize("path", ["job/", ""])
def test_the_first_version_of_control_groups(path, tmp_path):
    files = {
        f"groups/memory/{path}memory.limit_in_bytes": f"{5 * GIB}\n",
        f"groups/memory/{path}memory.usage_in_bytes": f"{4 * GIB}\n",
        f"groups/memory/{path}memory.stat": f"cache 1\ntotal_inactive_file {GIB}\n",
    }
    group = "5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n"
    assert write_system(tmp_path, free=GIB, available=40 * GIB, group=group, files=files) == 2 * GIB


def test_a_group_beyond_its_limit_has_nothing_left(tmp_path):
    files = group_files("", limit=GIB, used=2 * GIB, cached=0)
    assert write_system(tmp_path, free=GIB, available=40 * GIB, group="0::/\n", files=files) == 0


@pytest.mark.skipif(platform.system() != "Linux", reason="other systems do not tell")
def test_this_machine_tells(tmp_path):
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(meminfo["MemAvailable"].split()[0]) * 1024
    assert 0 <= available_memory() <= available * 1.2 + GIB
    assert available_memory(tmp_path, tmp_path) is None or available_memory(tmp_path, tmp_path) > 0


def test_what_somebody_has_set_stays(monkeypatch):
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    keep_memory_flat()
    assert os.environ["LRU_CACHE_CAPACITY"] == "7"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "128"
    assert peak_memory() > 10**8


@pytest.mark.slow
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
from promptfuse._utils.memory import retain_heap
retain_heap()

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

"""The memory of a process that works for hours: what libraries keep, and the peak."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_ARENA_MAX = -8
"""glibc's number for ``mallopt``: the most arenas."""

_TRIM_THRESHOLD = -1
"""glibc's number for ``mallopt``: the free bytes at the heap's end above which they go back to the system."""

_MMAP_THRESHOLD = -3
"""glibc's number for ``mallopt``: the bytes from which a request is mapped by itself; at most 32 MiB."""


def retain_heap() -> None:
    """Make glibc reuse freed memory, for the whole process, from now on.

    Each pass of a step takes tens of megabytes and frees them. By default glibc returns what is free at the
    heap's end to the system, and the kernel has to clear every page when the next pass touches it: 4 % of a
    step's time or more. ``give_memory_back`` still works.
    """
    with suppress(OSError, AttributeError):  # Only glibc does so.
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 2**25)
        library.mallopt(_TRIM_THRESHOLD, 2**29)


def keep_memory_flat() -> None:
    """Limit what torch's CPU kernels and glibc keep, for the whole process, from now on.

    oneDNN caches what it prepared for each of the last 1,024 shapes of a matrix product, up to half a
    megabyte each, and searches meet new shapes all the time; a smaller cache takes no more time. glibc has an
    arena for each thread; photos in flight have threads of their own, but one is busy at a time, so that one
    arena is enough.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
    retain_heap()
    with suppress(OSError, AttributeError):  # Only glibc can do so.
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def give_memory_back() -> None:
    """Make glibc return free memory to the system, fragmented parts included."""
    with suppress(OSError, AttributeError):  # Only glibc can do so, and only glibc needs to.
        ctypes.CDLL(None).malloc_trim(0)


def available_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The memory that this process can still take without swapping, in bytes.

    Memory of file caches counts as available. Limits of control groups, as containers have them, count too.

    Args:
        proc: where the kernel describes processes and memory.
        groups: where it describes control groups, of either version.

    Returns:
        None if the system does not say.
    """
    found = [*_left_on_machine(proc), *_left_in_groups(proc, groups)]
    if found:
        return max(0, min(found))
    try:  # Not Linux. Free memory is less than what is available, but more than nothing.
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _left_on_machine(proc: Path) -> Iterator[int]:
    for line in _lines(proc / "meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _left_in_groups(proc: Path, groups: Path) -> Iterator[int]:
    """What each control group that the process is in has left, where it has a limit."""
    for line in _lines(proc / "self" / "cgroup"):
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            top, names = groups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            top = groups / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # In a container the path may be the one outside of it, of which only the top is to be seen.
        place = PurePosixPath(path.strip().lstrip("/"))
        for folder in {top, *(top / part for part in (place, *place.parents))}:
            limit, used = (_lines(folder / name) for name in names[:2])
            if limit and used and limit[0].isdigit() and used[0].isdigit():
                cached = [
                    line.split()[1] for line in _lines(folder / "memory.stat") if line.startswith(names[2])
                ]
                yield int(limit[0]) - int(used[0]) + sum(map(int, cached[:1]))


def _lines(file: Path) -> list[str]:
    """The lines of a file of the kernel's; none where there is no such file."""
    try:
        return file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []


def peak_memory() -> int:
    """The largest resident size that this process has had, in bytes."""
    try:
        # Of this program alone; what ``getrusage`` tells is handed down from the process that started it.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if os.uname().sysname == "Darwin" else size * 1024

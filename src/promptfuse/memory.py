"""The memory of a process that works for hours: what libraries keep, and how much there has been."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_ARENA_MAX = -8
"""glibc's number for ``mallopt``: the most arenas."""


def keep_memory_flat() -> None:
    """Bound what torch's CPU kernels and the C library keep; for the whole process, from now on.

    oneDNN, and what torch has around it, remember what they prepared for each of the last 1,024 shapes of a
    matrix product, up to half a megabyte each, and searches meet new ones all the time. Fewer make no
    difference to the time. The C library gives each thread memory of its own to take from, and photos that
    are in flight together have threads of their own, of which one is busy at a time: they can share one.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
    with suppress(OSError, AttributeError):  # Only glibc can do so.
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def give_memory_back() -> None:
    """Have the C library give free memory back to the system; it keeps what is fragmented otherwise."""
    with suppress(OSError, AttributeError):  # Only glibc can do so, and only glibc needs to.
        ctypes.CDLL(None).malloc_trim(0)


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

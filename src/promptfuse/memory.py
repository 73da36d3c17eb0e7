"""The memory of a process that works for hours: what libraries keep, and how much there has been."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_ARENA_MAX = -8
"""glibc's number for ``mallopt``: the most arenas."""

_TRIM_THRESHOLD = -1
"""glibc's number for ``mallopt``: the free bytes at the heap's end above which they go back to the system."""

_MMAP_THRESHOLD = -3
"""glibc's number for ``mallopt``: the bytes from which a request is mapped by itself; at most 32 MiB."""


def reuse_memory() -> None:
    """Have the C library hand freed memory out again, for the whole process, from now on.

    The passes of a step ask for tens of megabytes and free them, again and again. By default glibc gives
    what is free at the heap's end back to the system each time, and the kernel has to clear every page when
    the next pass touches it: 4 % of a step's time or more. ``give_memory_back`` still works.
    """
    with suppress(OSError, AttributeError):  # Only glibc does so.
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 2**25)
        library.mallopt(_TRIM_THRESHOLD, 2**29)


def keep_memory_flat() -> None:
    """Bound what torch's CPU kernels and the C library keep; for the whole process, from now on.

    oneDNN, and what torch has around it, remember what they prepared for each of the last 1,024 shapes of a
    matrix product, up to half a megabyte each, and searches meet new ones all the time. Fewer make no
    difference to the time. The C library gives each thread memory of its own to take from, and photos that
    are in flight together have threads of their own, of which one is busy at a time: they can share one.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
    reuse_memory()
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

"""Processes that a pool of promptfuse has started, found through /proc."""

from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="workers are found through /proc"
)


def workers_of(parent: int) -> list[int]:
    """Living worker processes of a process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            state, whose = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if b"popen_loky" in command and int(whose) == parent and state != "Z":
            found.append(int(folder.name))
    return sorted(found)


def alive(process: int) -> bool:
    """Whether a process runs."""
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

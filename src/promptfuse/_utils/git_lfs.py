"""Files that git-lfs has not fetched: a few lines of text in the place of weights, photos and the like."""

from __future__ import annotations

from pathlib import Path

POINTER_REMEDY = "is a git-lfs pointer, not the file itself; run 'git lfs pull' in its repository"
"""What is wrong with such a file, and what to do."""

_BEGINNING = b"version https://git-lfs.github.com/spec/"
_LARGEST = 1024
"""Pointers are smaller, by their specification."""


def is_pointer(file: Path) -> bool:
    """Whether a file is what git-lfs leaves in the place of one that has not been fetched.

    Args:
        file: any path; one that is no file, or that cannot be read, is no pointer.
    """
    try:
        if not file.is_file() or file.stat().st_size >= _LARGEST:
            return False
        with file.open("rb") as stream:
            return stream.read(len(_BEGINNING)) == _BEGINNING
    except (OSError, ValueError):
        return False

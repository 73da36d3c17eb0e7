"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def expand_user(path: str | os.PathLike[str]) -> Path:
    """A path with the home folder in the place of ``~``; unchanged where there is no such user.

    ``Path.expanduser`` raises for the latter, where all others see a file that is not there.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111


def cache_root() -> Path:
    """The folder of all that is cached: ``PROMPTFUSE_CACHE`` if it is set, else the user's cache folder."""
    return expand_user(os.environ.get("PROMPTFUSE_CACHE") or platformdirs.user_cache_dir("promptfuse"))

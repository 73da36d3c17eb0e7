"""Changes of a configuration file."""

from __future__ import annotations

from pathlib import Path


def change(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))
    return path

"""Data sets in temporary folders, written as their publishers write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Write = Callable[..., Path]


def save_photo(path: Path, colour: str = "red") -> Path:
    """A small photo, with the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12), colour).save(path)
    return path


@pytest.fixture
def photo() -> Callable[..., Path]:
    return save_photo


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of the temporary folder: text, bytes, or anything else as JSON."""

    def save(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_bytes(text.encode())
        return path

    return save


@pytest.fixture(autouse=True)
def _no_data_sets_of_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The names of whoever runs the tests are none of theirs."""
    monkeypatch.delenv("PROMPTFUSE_DATA", raising=False)
    monkeypatch.setattr(
        "platformdirs.user_config_dir", lambda name: str(tmp_path_factory.getbasetemp() / name)
    )
    monkeypatch.setattr("promptfuse.evaluation.datasets.names._registered", {})

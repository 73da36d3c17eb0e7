from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from promptfuse.errors import ModelError
from promptfuse.models import load_model, packaged
from promptfuse.models.info import place_of
from promptfuse.models.packaged import PACKAGED, PackagedModel, find_packaged


def test_a_package_that_is_absent_is_told_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    for name, model in PACKAGED.items():
        with pytest.raises(ModelError) as caught:
            load_model(name)
        assert str(caught.value) == f"{name}: its package is not installed; {model.install}"
        assert place_of(name) == ("not installed", model.install)


def test_a_name_that_is_nearly_right_is_told() -> None:
    with pytest.raises(ModelError, match="did you mean 'smollm2'"):
        load_model("smolm2")


@pytest.fixture
def pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages that hold a half each of one file."""
    for name, content in (("half_a", b"GGUF first, "), ("half_b", b"second")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')")
        (tmp_path / name / "piece").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PROMPTFUSE_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(b"GGUF first, second").hexdigest()
    halves = (("half_a", "piece"), ("half_b", "piece"))
    monkeypatch.setitem(
        PACKAGED, "halves", PackagedModel("half_a", "w.gguf", "pip install x", halves, digest)
    )
    return tmp_path


def test_pieces_are_joined_once_and_no_code_of_theirs_runs(pieces: Path) -> None:
    joined = find_packaged("halves")
    assert joined.read_bytes() == b"GGUF first, second"
    (pieces / "half_a" / "piece").write_bytes(b"other")
    assert find_packaged("halves").read_bytes() == b"GGUF first, second"
    assert "half_a" not in sys.modules
    assert [path.name for path in joined.parent.iterdir()] == ["w.gguf"]


def test_damaged_pieces_are_refused(pieces: Path) -> None:
    (pieces / "half_b" / "piece").write_bytes(b"sec")
    with pytest.raises(ModelError, match="halves: its pieces are damaged; install it again: pip install x"):
        find_packaged("halves")
    (pieces / "half_b" / "piece").unlink()
    with pytest.raises(ModelError, match=r"halves: .*piece is missing; install it again"):
        find_packaged("halves")
    assert list((pieces / "cache" / "packaged").iterdir()) == []

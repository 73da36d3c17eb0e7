from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

SUBJECTS = ("a brown dog", "two men", "a small child", "the red boat", "a woman")
ACTIONS = ("runs over the grass", "sits on a wall", "jumps into the water", "looks at the sky")

MakeRun = Callable[..., Path]
Outcome = tuple[int, str, str]


def written(number: int) -> list[str]:
    """What people wrote about a photo."""
    subject, action = SUBJECTS[number % 5], ACTIONS[number % 4]
    return [f"{subject} {action}", f"{subject.capitalize()} {action} today ."]


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> list[Path]:
    """Photos of many colours."""
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for number in range(12):
        path = folder / f"photo{number}.jpg"
        Image.new("RGB", (300, 200), (20 * number, 255 - 20 * number, 90)).save(path)
        paths.append(path)
    return paths


@pytest.fixture
def references(tmp_path, photos) -> Path:
    """A data set with two references a photo."""
    path = tmp_path / "captions.jsonl"
    rows = [
        {"id": f"p{number}", "image": str(photo), "captions": written(number)}
        for number, photo in enumerate(photos)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def make_run(tmp_path, photos, references) -> MakeRun:
    """Write the folder of a run.

    Each photo is described by the reference of the one ``off`` places further on; lines can be changed by
    photo.
    """

    def make(
        name: str,
        off: int = 0,
        lines: Mapping[int, Mapping[str, Any]] | None = None,
        numbers: Sequence[int] = range(12),
        manifest: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        **terms: float,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        weights = {"fluency": 1.0, "image": 10.0} if weights is None else weights
        rows = []
        for number in numbers:
            losses = {name: terms.get(name, 0.5) + 0.01 * number + 0.1 * off for name in weights}
            row = {
                "id": f"p{number}",
                "image": str(photos[number]),
                "text": written(number + off)[0],
                "error": None,
                "value": sum(weights[name] * loss for name, loss in losses.items()),
                "terms": losses,
                "weights": dict(weights),
                "complete": True,
                "exact_evaluations": 100 + number,
                "seconds": 0.5 + off + 0.01 * number,
                "seed": number,
            }
            rows.append({**row, **(lines or {}).get(number, {})})
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        usual = {
            "data": {"name": "toys", "source": str(references)},
            "recipe": {"kind": "search", "beams": 4},
            "models": {"fluency": {"name": "tiny-lm", "fingerprint": "f1"}},
            "photos": len(rows),
        }
        (folder / "manifest.json").write_text(json.dumps({**usual, **(manifest or {})}))
        return folder

    return make


FAILED = {"text": None, "error": "cut <short>; save it again", "terms": {}, "weights": {}, "value": None}

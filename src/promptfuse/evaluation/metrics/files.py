"""Captions of any system, from files."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.columns import CAPTION_COLUMNS
from promptfuse.evaluation.datasets.documents import read_records
from promptfuse.evaluation.datasets.rows import (
    ID_COLUMNS,
    IMAGE_COLUMNS,
    IdRow,
    parse,
    parse_caption,
    parse_name,
)
from promptfuse.evaluation.datasets.texts import decode, first_line, is_wide, naming, read_data
from promptfuse.evaluation.predictions import parse_predictions
from promptfuse.evaluation.run_files import LINES, MANIFEST, local_copy

_PREDICTION_FORMATS = "give [{image_id, caption}] as JSON, lines of {id, text}, or the folder of a run"
_TEXTS = ("text", "prediction", "generated_text", *CAPTION_COLUMNS)
"""Columns of captions of a system, before those that data sets have."""


@dataclass
class Predicted:
    """Captions of one system.

    Attributes:
        texts: by the photos' ids, in the order of the file.
        images: paths of the photos, of a run's predictions.
        costs: what each photo took, by name and id, of a run's predictions.
        failed: photos that have no caption, with the reason, by id.
        searched: identities of the models that a run searched with; fingerprints where it has none.
    """

    texts: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    searched: tuple[str, ...] = ()

    def put(self, id_: str, text: str | None, error: Any, place: str) -> bool:
        """Add a photo's caption, or the reason why it has none; return whether it has one.

        Raises:
            ConfigError: if the photo was there already.
        """
        # A photo that failed may have been tried again.
        only_once(id_, place, self.texts, self.failed if text is None else ())
        self.failed.pop(id_, None)
        if text is None:
            self.failed[id_] = str(error or "no reason is given").encode(errors="backslashreplace").decode()
            return False
        self.texts[id_] = text
        return True


def read_captions(source: str | Path) -> Predicted:
    """Captions from COCO's result format, JSON lines or a run.

    Args:
        source: a JSON list of ``{image_id, caption}``, a JSON object of captions by id, JSON lines or CSV of
            ``{id, text}``, a run's folder, or its ``predictions.jsonl``; a path or an address. A caption may
            stand in a list of one, as in ``{"42": ["a dog"]}``.

    Raises:
        ConfigError: if it cannot be read, is of none of these formats, has two captions for one photo, or
            no caption at all.
    """
    with local_copy(str(source)) as path, naming(str(path)):
        return _captions(path)


def _captions(path: Path) -> Predicted:
    if path.is_dir():
        file = path / LINES
        if not file.is_file():
            raise ConfigError(f"no {LINES} in this folder; {_PREDICTION_FORMATS}")
        found = _of_run(file, read_data(str(file)))
    else:
        data = read_data(str(path))
        if _is_run(data):
            found = _of_run(path, data)
        else:
            found = _of_others(path, decode(data, str(path), _PREDICTION_FORMATS))
    if not found.texts:
        first = next(iter(found.failed.values()), None)
        why = f"all {len(found.failed)} photos failed, the first: {first}" if first else "has no captions"
        raise ConfigError(f"{why}; nothing can be scored")
    return found


def _is_run(data: bytes) -> bool:
    """Whether these are the lines that a run writes; the last of them may be cut off."""
    text = data.decode("utf-16" if is_wide(data) else "utf-8-sig", errors="replace")
    try:
        first = json.loads(first_line(text))
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and first.keys() >= {"id", "image", "text", "error", "exact_evaluations"}


def _of_run(file: Path, data: bytes) -> Predicted:
    found = Predicted(costs={"seconds": {}, "exact_evaluations": {}})
    for number, line in enumerate(parse_predictions(file, data), 1):
        if found.put(line.id, line.text, line.error, f"{file}: line {number}"):
            found.images[line.id] = line.image
            found.costs["seconds"][line.id] = line.seconds
            found.costs["exact_evaluations"][line.id] = float(line.exact_evaluations)
    found.searched = _searched_with(file.parent / MANIFEST)
    return found


def _searched_with(manifest: Path) -> tuple[str, ...]:
    """What tells the models that a run's manifest names; nothing where it does not."""
    try:
        models = json.loads(manifest.read_text(encoding="utf-8"))["models"].values()
        return tuple(str(model.get("identity") or model["fingerprint"]) for model in models)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()


def _of_others(path: Path, text: str) -> Predicted:
    if not text.strip():
        raise ConfigError(f"is empty; {_PREDICTION_FORMATS}")
    found = Predicted()
    ids = (*ID_COLUMNS, *IMAGE_COLUMNS)
    document, records = read_records(text, str(path), _PREDICTION_FORMATS, ids, "names the photos")
    if isinstance(document, dict) and document.keys().isdisjoint((*ids, *_TEXTS)):
        if "annotations" in document:
            raise ConfigError(f"a data set, not the captions of a system; {_PREDICTION_FORMATS}")
        for key, value in document.items():
            place = f"{key!r:.60}"
            found.put(parse_name(key, place), _one(value, place), None, place)
        return found
    for place, fields in records:
        id_ = parse(IdRow.model_validate, fields, place, _PREDICTION_FORMATS).id
        found.put(id_, _in_fields(fields, place), fields.get("error"), place)
    return found


def _in_fields(fields: Mapping[str, Any], place: str) -> str | None:
    """The caption in the first column that may have one."""
    column = next((name for name in _TEXTS if name in fields), None)
    if column is None:
        raise ConfigError(f"{place}: no caption (found {', '.join(map(str, fields))}); {_PREDICTION_FORMATS}")
    return _one(fields[column], place)


def _one(value: Any, place: str) -> str | None:
    """The caption of a photo, which may stand in a list of one or in fields; None if there is none."""
    if value is None:
        return None
    if isinstance(value, dict):
        return _in_fields(value, place)
    if isinstance(value, list):
        if len(value) != 1:
            raise ConfigError(f"{place}: {len(value) or 'no'} captions; give one for each photo")
        return _one(value[0], place)
    return parse_caption(value, place)


def only_once(id_: str, place: str, *seen: Container[str]) -> None:
    """Raise ``ConfigError`` if an id was there before."""
    if any(id_ in one for one in seen):
        raise ConfigError(f"{place}: {id_!r} occurs twice; keep one entry for each photo")

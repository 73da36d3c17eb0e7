"""Predictions and references of anybody's making, from files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptfuse.addresses import is_address, is_folder
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import read_dataset
from promptfuse.evaluation.datasets.fields import as_caption, as_fields, as_list, as_text
from promptfuse.evaluation.datasets.folder import is_photo
from promptfuse.evaluation.datasets.table import ID_COLUMNS, IMAGE_COLUMNS
from promptfuse.evaluation.datasets.texts import decode, read_data
from promptfuse.evaluation.metrics.photo_files import find_photos
from promptfuse.evaluation.predictions import Prediction, read_predictions
from promptfuse.evaluation.run_files import LINES, MANIFEST, local_copy

_PREDICTION_FORMATS = "give [{image_id, caption}] as JSON, lines of {id, text}, or the folder of a run"
_REFERENCE_FORMATS = "give COCO's captions as JSON, lines of {id, references}, or a data set"


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
        _only_once(id_, place, self.texts, self.failed if text is None else ())
        self.failed.pop(id_, None)
        if text is None:
            self.failed[id_] = str(error or "no reason is given").encode(errors="backslashreplace").decode()
            return False
        self.texts[id_] = text
        return True


@dataclass
class Referenced:
    """What people wrote about photos.

    Attributes:
        texts: by the photos' ids.
        images: paths or addresses of the photos, where the file names them.
    """

    texts: dict[str, list[str]] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)


def read_captions(source: str | Path) -> Predicted:
    """Captions from COCO's result format, JSON lines or a run.

    Args:
        source: a JSON list of ``{image_id, caption}``, a JSON object of captions by id, JSON lines of
            ``{id, text}``, a run's folder, or its ``predictions.jsonl``; a path or an address.

    Raises:
        ConfigError: if it cannot be read, is of none of these formats, has two captions for one photo, or
            no caption at all.
    """
    with local_copy(str(source)) as path:
        return _captions(path)


def _captions(path: Path) -> Predicted:
    if path.is_dir():
        file = path / LINES
        if not file.is_file():
            raise ConfigError(f"{path}: no {LINES} in this folder; {_PREDICTION_FORMATS}")
        found = _of_run(file)
    else:
        text = decode(read_data(str(path)), str(path), _PREDICTION_FORMATS)
        found = _of_run(path) if _is_run(text) else _of_others(path, text)
    if not found.texts:
        first = next(iter(found.failed.values()), None)
        why = f"all {len(found.failed)} photos failed, the first: {first}" if first else "has no captions"
        raise ConfigError(f"{path}: {why}; nothing can be scored")
    return found


def read_references(source: str, images: str | None = None) -> Referenced:
    """What people wrote, from JSON lines of ``{id, references}`` or any data set.

    Args:
        source: JSON lines of ``{id, references}``, a JSON object of lists by id, a list of
            ``{image_id, caption}``, COCO's captions also without the names of its photos, or whatever
            ``read_dataset`` takes.
        images: the folder of the photos.

    Raises:
        ConfigError: if it cannot be read, or a photo occurs twice.
    """
    text = _json_text(source)
    if text is not None:
        groups = _own_references(Path(source), text)
        if groups is not None:
            return Referenced(groups, find_photos(images, groups) if images is not None else {})
    dataset = read_dataset(source, images=images)
    texts = {photo.id: list(photo.references) for photo in dataset.photos}
    return Referenced(texts, {photo.id: photo.image for photo in dataset.photos})


def _json_text(source: str) -> str | None:
    """The text of a file that begins as JSON does; None for anything else, which a data set may be."""
    path = Path(source)
    if is_address(source):
        # What is large there is not fetched to look at it.
        if path.suffix.lower() not in (".json", ".jsonl", ".ndjson") or is_folder(source, ConfigError):
            return None
    elif not path.is_file():  # A pipe can be read only once.
        return None
    if is_photo(path.name):
        return None
    text = decode(read_data(source), source, _REFERENCE_FORMATS)
    return text if text.lstrip()[:1] in ("{", "[") else None


def _lines(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of JSON lines with their places; empty lines are passed over."""
    # Not splitlines: it also cuts at characters that JSON allows within a text.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{path}: line {number}"
            try:
                yield place, as_fields(json.loads(line), place)
            except (ValueError, RecursionError):
                raise ConfigError(f"{place}: not valid JSON; correct it") from None


def _document(path: Path, text: str, formats: str) -> Any:
    """The file as one JSON document, or None if it is JSON lines."""
    first, _, rest = text.strip().partition("\n")
    if rest and first.rstrip().endswith("}"):
        try:
            json.loads(first)
        except (ValueError, RecursionError):
            pass
        else:
            return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            return None
        reason = (
            f"{error.msg}, line {error.lineno}"
            if isinstance(error, json.JSONDecodeError)
            else "too deep"
            if isinstance(error, RecursionError)
            else str(error)[:60]
        )
        raise ConfigError(f"{path}: not valid JSON ({reason}); {formats}") from None
    if isinstance(found, dict) and found.keys().isdisjoint(("images", "annotations")):
        # Texts by id, of which a dict keeps the last; a large data set is not gone through once more.
        often = Counter(key for key, _ in json.loads(text, object_pairs_hook=list))
        for key in (key for key, count in often.items() if count > 1):
            raise ConfigError(f"{path}: {key!r} occurs a second time; keep one entry a photo")
    return found


def _is_run(text: str) -> bool:
    """Whether these are the lines that a run writes."""
    try:
        first = json.loads(text.partition("\n")[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and first.keys() >= {"id", "image", "text", "error", "exact_evaluations"}


def _of_run(file: Path) -> Predicted:
    found = Predicted(costs={"seconds": {}, "exact_evaluations": {}})
    for number, line in enumerate(read_predictions(file), 1):
        _add_line(found, line, f"{file}: line {number}")
    found.searched = _searched_with(file.parent / MANIFEST)
    return found


def _add_line(found: Predicted, line: Prediction, place: str) -> None:
    if not found.put(line.id, line.text, line.error, place):
        return
    found.images[line.id] = line.image
    found.costs["seconds"][line.id] = line.seconds
    found.costs["exact_evaluations"][line.id] = float(line.exact_evaluations)


def _searched_with(manifest: Path) -> tuple[str, ...]:
    """What tells the models that a run's manifest names; nothing where it does not."""
    try:
        models = json.loads(manifest.read_text(encoding="utf-8"))["models"].values()
        return tuple(str(model.get("identity") or model["fingerprint"]) for model in models)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()


def _only_once(id_: str, place: str, *seen: Container[str]) -> None:
    if any(id_ in one for one in seen):
        raise ConfigError(f"{place}: {id_!r} occurs a second time; keep one entry a photo")


def _of_others(path: Path, text: str) -> Predicted:
    if not text.strip():
        raise ConfigError(f"{path}: is empty; {_PREDICTION_FORMATS}")
    document = _document(path, text, _PREDICTION_FORMATS)
    found = Predicted()
    if isinstance(document, dict) and not document.keys() & {*_IDS, *_TEXTS}:
        if "annotations" in document:
            raise ConfigError(f"{path}: a data set, not the captions of a system; {_PREDICTION_FORMATS}")
        for key, caption in document.items():
            place = f"{path}: {key!r:.60}"
            id_ = as_text(key, place)
            found.put(id_, as_caption(caption, place), None, place)
        return found
    for place, fields in _records(path, text, document):
        id_ = _id(fields, place, _PREDICTION_FORMATS)
        key = _key(fields, _TEXTS)
        if key is None:
            raise ConfigError(f"{place}: no caption (found {', '.join(fields)}); {_PREDICTION_FORMATS}")
        text_or_none = None if fields[key] is None else as_caption(fields[key], place)
        found.put(id_, text_or_none, fields.get("error"), place)
    return found


def _records(path: Path, text: str, document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if document is None:
        yield from _lines(path, text)
    elif isinstance(document, dict):
        yield f"{path}: line 1", document
    else:
        for number, row in enumerate(as_list(document, str(path)), 1):
            yield f"{path}: entry {number}", as_fields(row, f"{path}: entry {number}")


_IDS = (*ID_COLUMNS, *IMAGE_COLUMNS)
_TEXTS = ("text", "caption")
_GROUPS = ("references", "captions", "caption", "reference")


def _key(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in fields), None)


def _id(fields: Mapping[str, Any], place: str, formats: str) -> str:
    key = _key(fields, _IDS)
    id_ = as_text(fields[key], place) if key is not None else ""
    if not id_:
        raise ConfigError(f"{place}: no id of the photo; {formats}")
    return id_


def _own_references(path: Path, text: str) -> dict[str, list[str]] | None:
    """References by id of the formats that name no photos; None if it is a data set."""
    document = _document(path, text, _REFERENCE_FORMATS)
    if isinstance(document, dict):
        if "annotations" in document and not _names_photos(document.get("images")):
            rows = enumerate(as_list(document["annotations"], f"{path}: annotations"))
            places = ((f"{path}: annotations[{number}]", row) for number, row in rows)
            return _grouped((place, as_fields(row, place)) for place, row in places)
        if document and all(isinstance(value, list) for value in document.values()) and not (
            document.keys() & {"images", "annotations"}
        ):  # fmt: skip
            groups: dict[str, list[str]] = {}
            for key, several in document.items():
                place = f"{path}: {key!r:.60}"
                id_ = as_text(key, place)
                _only_once(id_, place, groups)
                groups[id_] = [as_caption(one, place) for one in several]
            return _without_empty(groups)
        if document.keys().isdisjoint(_GROUPS):
            return None
    elif isinstance(document, list) and not document:
        return None
    records = list(_records(path, text, document))
    # With a column that names the photos it is a data set.
    if not records or any(_key(fields, IMAGE_COLUMNS) is not None or not fields.keys() & set(_GROUPS)
                          for _, fields in records):  # fmt: skip
        return None
    return _grouped(records)


def _names_photos(images: Any) -> bool:
    """Whether a list of COCO's says where all photos are; ids are enough to score captions."""
    return isinstance(images, list) and bool(images) and all(
        isinstance(image, dict) and "file_name" in image for image in images
    )  # fmt: skip


def _grouped(records: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, list[str]]:
    """References by id, from a list a photo, or from one or more rows with one caption each."""
    groups: dict[str, list[str]] = {}
    listed: dict[str, None] = {}
    for place, fields in records:
        key = _key(fields, _GROUPS) or "caption"
        value = fields.get(key)
        id_ = _id(fields, place, _REFERENCE_FORMATS)
        if isinstance(value, list):
            _only_once(id_, place, groups)
            listed[id_] = None
        else:
            _only_once(id_, place, listed)
        several = value if isinstance(value, list) else [value]
        groups.setdefault(id_, []).extend(as_caption(one, place) for one in several)
    return _without_empty(groups)


def _without_empty(groups: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Captions stripped, and empty ones left out, as data sets do."""
    return {id_: [text.strip() for text in texts if text.strip()] for id_, texts in groups.items()}

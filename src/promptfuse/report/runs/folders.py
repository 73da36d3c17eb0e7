"""Reading the folders that runs over data sets filled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

from promptfuse._utils.addresses import is_address
from promptfuse.errors import ConfigError
from promptfuse.evaluation.predictions import Prediction, read_predictions
from promptfuse.evaluation.run_files import LINES, MANIFEST, local_copy


@dataclass(frozen=True)
class Run:
    """A folder that a run over a data set filled.

    Attributes:
        name: of the folder, with those above it where two have the same.
        folder: its path or address.
        manifest: the content of its ``manifest.json``; empty if there is none.
        predictions: by the photos' ids, in the order of the file.
    """

    name: str
    folder: str
    manifest: Mapping[str, Any] = field(repr=False)
    predictions: Mapping[str, Prediction] = field(repr=False)

    @property
    def failures(self) -> list[Prediction]:
        """The photos without a caption."""
        return [one for one in self.predictions.values() if one.text is None]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The recipe that made the captions."""
        return mapping(self.manifest.get("recipe"))

    @property
    def data(self) -> Mapping[str, Any]:
        """The data set that the photos are from."""
        return mapping(self.manifest.get("data"))

    @property
    def models(self) -> dict[str, dict[str, str]]:
        """Name, fingerprint and identity of each model of the search, by role, or empty texts."""
        found = {role: mapping(model) for role, model in mapping(self.manifest.get("models")).items()}
        keys = ("name", "fingerprint", "identity")
        return {role: {key: str(model.get(key, "")) for key in keys} for role, model in found.items()}

    @property
    def sessions(self) -> list[Mapping[str, Any]]:
        """What the manifest records of each session of the run."""
        found = self.manifest.get("sessions")
        return [mapping(session) for session in found] if isinstance(found, list) else []

    @property
    def labels(self) -> list[str]:
        """The labels that its captions were steered to; not those that they were steered away from."""
        steers = self.settings.get("steer")
        parts = [steer_parts(str(steer)) for steer in steers] if isinstance(steers, list) else []
        labels = [name.rpartition(":")[2] for name, weight in parts if weight is None or weight > 0]
        if sentiment := self.settings.get("sentiment"):
            # A classifier may call it otherwise, which the preset knows.
            spelled = mapping(mapping(self.manifest.get("preset")).get("labels"))
            labels.insert(0, str(spelled.get(str(sentiment), sentiment)))
        return labels


def steer_parts(steer: str) -> tuple[str, float | None]:
    """``MODEL:LABEL`` of a steer, and its weight if it has one."""
    name, _, weight = steer.rpartition("=")
    try:
        return (name, float(weight)) if name else (steer, None)
    except ValueError:
        return steer, None


def load_runs(folders: Sequence[str | PathLike[str]]) -> list[Run]:
    """Read run folders.

    Args:
        folders: their paths, or addresses such as ``s3://bucket/runs/first``.

    Raises:
        ConfigError: if a folder has no predictions, or is given twice, or a file cannot be read.
    """
    given = [str(folder) for folder in folders]
    places = [
        PurePosixPath(folder if is_address(folder) else Path(folder).resolve().as_posix()) for folder in given
    ]
    for index, place in enumerate(places):
        if place in places[:index]:
            raise ConfigError(f"{given[index]}: given twice; give each run once")
    return [_read(name, folder) for name, folder in zip(_names(places), given, strict=True)]


def mapping(values: Any) -> Mapping[str, Any]:
    """A JSON object; an empty one for anything else."""
    return values if isinstance(values, dict) else {}


def _read(name: str, folder: str) -> Run:
    with local_copy(folder) as local:
        lines, manifest = local / LINES, local / MANIFEST
        if not lines.is_file():
            missing = f"no {LINES} in it" if local.exists() else "no such folder"
            raise ConfigError(f"{local}: {missing}; give the folder of a run")
        predictions = {one.id: one for one in read_predictions(lines)}
        if not predictions:
            raise ConfigError(f"{lines}: no predictions yet; let the run finish a photo first")
        try:
            values = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
        except (OSError, ValueError):
            raise ConfigError(
                f"{manifest}: damaged; remove it (the report then says less about the run)"
            ) from None
        return Run(name, folder, mapping(values), predictions)


def _names(places: Sequence[PurePosixPath]) -> list[str]:
    """The last part of each path, with as many of those above as tell them apart."""
    for depth in range(1, max(len(place.parts) for place in places) + 1):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(names):
            break
    return names

"""What a run folder holds: on which photos, by which models and settings, and how far the run has come."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from promptfuse._utils.atomic_files import atomic_write
from promptfuse._utils.resume import check_resumable
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import Dataset

FILE = "manifest.json"
FIXED = ("data", "recipe", "preset", "seed", "in_flight", "threads", "models")
"""What a run cannot go on with another value of, since its lines would not be those of one run."""


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    # Imported late, so that a manifest can be read without torch.
    from promptfuse.search.result import versions

    return versions()


@dataclass
class Session:
    """One stretch of work on a run, from its start or a resume to its end or an interrupt.

    Attributes:
        started: when, in UTC.
        updated: when the manifest was last written.
        versions: of promptfuse and what computes under it.
        engine: ``local`` or ``ray``, with its workers and what each may use.
        device: where the models were.
        photos: how many were done.
        models: the identity of each, by role.
        seconds: time since the first photo was begun.
        work_seconds: time that all workers spent on photos.
        peak_memory_bytes: the largest resident size of a process that computed.
        peak_device_bytes: the most memory that tensors took on a GPU; 0 without one.
    """

    started: str = field(default_factory=now)
    updated: str = field(default_factory=now)
    versions: dict[str, str] = field(default_factory=_versions)
    engine: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    photos: int = 0
    models: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    work_seconds: float = 0.0
    peak_memory_bytes: int = 0
    peak_device_bytes: int = 0


@dataclass
class Manifest:
    """The file ``manifest.json`` of a run folder.

    Attributes:
        name: what reports call the run; may be empty.
        data: name, source, format and split of the data set; how many of its photos the run has and from
            which on; checksums of the source file and of the photos' ids.
        recipe: all its settings.
        seed: of the data set's first photo.
        in_flight: photos that share their forward passes.
        threads: of each process.
        preset: the numbers of the recipe's preset, which may differ in another version.
        models: name, fingerprint and identity of each, by role.
        photos: how many there are.
        done: how many have their line.
        failed: how many of those have no caption.
        keep_rejected: whether captions that the data set marks as rejected count for reports.
        sessions: what was worked on it, and when.
    """

    name: str
    data: dict[str, Any]
    recipe: dict[str, Any]
    seed: int
    in_flight: int
    threads: int
    photos: int
    preset: dict[str, Any] = field(default_factory=dict)
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    done: int = 0
    failed: int = 0
    keep_rejected: bool = False
    sessions: list[Session] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, with sums over the sessions."""
        values = asdict(self)
        last = values["sessions"][-1] if self.sessions else {}
        return {
            "format": 1,
            "started": self.sessions[0].started if self.sessions else None,
            "updated": last.get("updated"),
            "versions": last.get("versions"),
            "device": last.get("device"),
            "engine": last.get("engine"),
            **{key: value for key, value in values.items() if key != "sessions"},
            "seconds": sum(session.seconds for session in self.sessions),
            "work_seconds": sum(session.work_seconds for session in self.sessions),
            "peak_memory_bytes": max((one.peak_memory_bytes for one in self.sessions), default=0),
            "peak_device_bytes": max((one.peak_device_bytes for one in self.sessions), default=0),
            "sessions": values["sessions"],
        }

    def write(self, folder: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: if it cannot be written.
        """
        if self.sessions:
            self.sessions[-1].updated = now()
        atomic_write(folder / FILE, json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run folder; None if there is none.

    Raises:
        ConfigError: if it cannot be read or is damaged.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = {name: values[name] for name in Manifest.__dataclass_fields__ if name in values}
        return Manifest(**{**known, "sessions": [Session(**one) for one in values["sessions"]]})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}: damaged or of another version; give another folder") from None


def require_same(folder: Path | str, before: Manifest, current: Manifest) -> None:
    """Make sure that a run is resumed with what it began with.

    Args:
        folder: the run folder, for the message.
        before: what the folder holds.
        current: what it would be resumed with; models that are not loaded yet are not compared.

    Raises:
        ConfigError: if something differs that changes what comes out; the message names it.
    """
    source, sha = current.data.get("source"), "source_sha256"
    if before.data.get("source") == source and before.data.get(sha) != current.data.get(sha):
        raise ConfigError(
            f"run folder {folder}: {source} has changed since the run began; "
            "give another folder, or the file as it was"
        )
    loaded = bool(current.models and before.models)
    if loaded and not all(model.get("identity") for model in before.models.values()):
        raise ConfigError(
            f"run folder {folder}: begun by an earlier version, which did not record all weights of its "
            "models, so it is unknown whether these are the same; give another folder"
        )
    fixed = [key for key in FIXED if key != "models" or loaded]
    was, given = ({key: getattr(one, key) for key in fixed} for one in (before, current))
    check_resumable(folder, was, given)


def describe_data(dataset: Dataset, split: str | None, start: int) -> dict[str, Any]:
    """The data of a run, so that another one's can be told from it.

    Args:
        dataset: with the photos of the run.
        split: which was asked for.
        start: where in the data set the first one is.
    """
    ids = hashlib.sha256()
    for photo in dataset.photos:
        ids.update(f"{json.dumps([photo.id, photo.image])}\n".encode())
    source = Path(dataset.source)
    checksum = None
    if source.is_file():
        with source.open("rb") as stream:
            checksum = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "name": dataset.name,
        "source": dataset.source,
        "format": dataset.format,
        "split": split,
        "start": start,
        "photos": len(dataset.photos),
        "source_sha256": checksum,
        "photos_sha256": ids.hexdigest(),
    }

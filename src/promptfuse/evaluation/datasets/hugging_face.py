"""Data sets of Hugging Face's package ``datasets``: from the hub, from Parquet or from saved folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from pathlib import Path, PurePosixPath
from typing import Any

from promptfuse._utils.messages import one_line
from promptfuse._utils.paths import cache_root, expand_user
from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.documents import Record
from promptfuse.evaluation.datasets.records import Contents
from promptfuse.evaluation.datasets.table import read_table

PREFIX = "hf:"
"""Before a name on the hub or a path: ``hf:owner/name``, ``hf:owner/name:test``, ``hf:train.parquet``."""

_ROWS = 1_000
"""Rows that are Python objects at the same time."""


def is_hub_name(source: str) -> bool:
    """Whether a source is to be read by the package ``datasets``; ``hf://...`` is an address instead."""
    return source.startswith(PREFIX) and not source.startswith(f"{PREFIX}//")


def is_saved(folder: str) -> bool:
    """Whether ``save_to_disk`` of the package ``datasets`` wrote a local folder."""
    path = Path(folder)
    return (path / "dataset_dict.json").is_file() or (
        (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    )


def name_and_split(source: str) -> tuple[str, str | None]:
    """The name or path of a source, and the split that it asks for."""
    name = source.removeprefix(PREFIX)
    match = re.fullmatch(r"(.+):([\w.-]+)", name)
    return (match[1], match[2]) if match and source.startswith(PREFIX) else (name, None)


def read_hugging_face(source: str, keep_rejected: bool) -> tuple[Contents, TablePhotos]:
    """The photos of a data set, with ids such as ``train/000017`` where no column has ids.

    A column of photos is found by its type, other columns as in any table. Photos within the tables get paths
    in the folder of the package's cache, and are written there when they are needed.

    Args:
        source: a name or path after ``hf:``, or a folder that `is_saved`.
        keep_rejected: whether captions that the data set marks as rejected count.

    Returns:
        The rows, and the photos that are within the tables.

    Raises:
        ConfigError: if the package is not installed, it cannot read the source, or there is no such split.
    """
    name, wanted = name_and_split(source)
    splits = _load(name)
    if wanted is not None and wanted not in splits:
        raise ConfigError(f"no split {wanted!r}; {nearest(wanted, splits)}")
    kept = splits if wanted is None else {wanted: splits[wanted]}
    photos = TablePhotos(cache_root() / "datasets")
    contents = read_table(
        (record for split, dataset in kept.items() for record in photos.records(split, dataset)),
        keep_rejected,
    )
    for row in contents.rows:
        row.names = (photos.paths.get(row.names[0], row.names[0]),)
    return contents, photos


def _load(name: str) -> dict[str, Any]:
    """The splits of a data set."""
    try:
        import datasets
    except ImportError:
        raise ConfigError("needs the package datasets; pip install 'promptfuse[datasets]'") from None
    path = expand_user(name)
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        if path.is_dir() and is_saved(str(path)):
            found = datasets.load_from_disk(str(path))
        elif path.is_file():
            found = datasets.load_dataset("parquet", data_files=str(path))
        else:
            found = datasets.load_dataset(str(path) if path.is_dir() else name)
    except Exception as error:  # Each file format and the hub have exceptions of their own.
        raise ConfigError(
            f"the package datasets cannot read it ({one_line(error)}); check the name and the network"
        ) from None
    finally:
        if shown:
            datasets.enable_progress_bars()
    if isinstance(found, Mapping):
        return {str(split): dataset for split, dataset in found.items()}
    return {str(found.split or "train"): found}


class TablePhotos:
    """Photos within tables, which become files when they are needed.

    Args:
        folder: where the files are written.

    Attributes:
        paths: of the file of each photo, by the name that its rows have.
        places: where each photo is, by the path of its file: the data set, the column and the row.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: dict[str, str] = {}
        self.places: dict[str, tuple[Any, str, int]] = {}

    def records(self, split: str, dataset: Any) -> Iterator[Record]:
        """The rows of a split; of those with photos, the names of the photos under ``image``."""
        import datasets

        columns = [name for name, kind in dataset.features.items() if isinstance(kind, datasets.Image)]
        plain = [name for name, kind in dataset.features.items() if not hasattr(kind, "decode_example")]
        names: list[str] = []
        if columns:
            photos = dataset.select_columns(columns[:1]).cast_column(columns[0], datasets.Image(decode=False))
            names = self._names(split, photos, columns[0])
        batches = dataset.select_columns(plain).with_format("arrow").iter(_ROWS) if plain else ()
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows if plain else repeat({}, len(dataset))):
            fields = {str(key).strip().lower(): value for key, value in row.items()}
            photo = {"image": names[number]} if columns else {}
            yield f"{split} row {number + 1}", fields | photo | {"split": split}

    def _names(self, split: str, photos: Any, column: str) -> list[str]:
        """A name for the photo of each row; rows with one file name and the same bytes share it."""
        folder = self.folder / re.sub(r"\W", "_", str(photos._fingerprint))
        names: list[str] = []
        for batch in photos.with_format("arrow").iter(_ROWS):
            # Of the column only the paths are read here; the photos may have gigabytes.
            for path in batch.column(column).combine_chunks().field("path").to_pylist():
                index = len(names)
                file = PurePosixPath((path or "").replace("\\", "/"))
                name = f"{split}/{file.name or f'{index:06d}'}"
                if name in self.paths and self._photo(self.paths[name]) != photos[index][column]:
                    name = f"{split}/{index:06d}-{file.name}"
                if name not in self.paths:
                    self.paths[name] = str(folder / f"{index:06d}{file.suffix.lower()}")
                    self.places[self.paths[name]] = (photos, column, index)
                names.append(name)
        return names

    def _photo(self, path: str) -> dict[str, Any]:
        """The photo of a file, as its bytes or the path where the data set has it."""
        dataset, column, index = self.places[path]
        found: dict[str, Any] = dataset[index][column] or {}
        return found

    def write(self, images: Iterable[str]) -> None:
        """Write those of the photos that are given and not there.

        Args:
            images: paths; others than those of photos within the tables are passed over.

        Raises:
            ConfigError: if they cannot be written.
        """
        for image in images:
            if image not in self.places or Path(image).exists():
                continue
            photo = self._photo(image)
            data = photo.get("bytes")
            if data is None and photo.get("path") and Path(photo["path"]).is_file():
                data = Path(photo["path"]).read_bytes()
            if data is None:
                continue  # Opening the photo tells that it is missing.
            try:
                Path(image).parent.mkdir(parents=True, exist_ok=True)
                part = Path(f"{image}.part")
                part.write_bytes(data)
                part.replace(image)
            except OSError as error:
                raise ConfigError(
                    f"{image}: cannot be written ({error.strerror}); set PROMPTFUSE_CACHE to another folder"
                ) from None

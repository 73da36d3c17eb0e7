"""The package's own readers of data sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from promptfuse._utils.addresses import is_address, join
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.coco import read_coco
from promptfuse.evaluation.datasets.documents import (
    Record,
    csv_records,
    headerless_records,
    json_lines,
    json_records,
    parquet_records,
)
from promptfuse.evaluation.datasets.folder import files_of, read_folder
from promptfuse.evaluation.datasets.hugging_face import (
    is_hub_name,
    is_saved,
    name_and_split,
    read_hugging_face,
)
from promptfuse.evaluation.datasets.imagefolder import read_metadata
from promptfuse.evaluation.datasets.karpathy import read_karpathy
from promptfuse.evaluation.datasets.readers import Reader, Source, readers
from promptfuse.evaluation.datasets.records import Contents
from promptfuse.evaluation.datasets.rows import IMAGE_COLUMNS
from promptfuse.evaluation.datasets.table import read_table


class FileReader(Reader):
    """Reads single files, and says what is wrong with a source that cannot be of its format."""

    @classmethod
    def check(cls, source: Source, name: str) -> None:
        """Raise ``ConfigError`` for a folder, and for a table if the format is a JSON document."""
        if source.is_folder:
            raise ConfigError(f"is a folder; give the file of the data set, or leave out the format {name}")

    @classmethod
    def document(cls, source: Source, name: str) -> Any:
        """The JSON document that the format is.

        Raises:
            ConfigError: if the source is something else.
        """
        cls.check(source, name)
        if source.is_parquet:
            raise ConfigError(f"is a Parquet table; leave out the format {name}")
        if source.text.lstrip()[0] not in "{[":
            raise ConfigError(
                f"not JSON, which the format {name} is; leave out the format, or check the file"
            )
        if source.is_json_lines:
            raise ConfigError(
                f"JSON lines, not of the format {name}; leave out the format to have it detected"
            )
        return source.document


@readers.register("karpathy")
class KarpathyReader(FileReader):
    """Karpathy's splits."""

    about: ClassVar[str] = "JSON of Karpathy's splits: images[] with filename, split and sentences[].raw"

    def matches(self, source: Source) -> bool:
        """Whether it is a document with ``images`` that have sentences, file names or splits."""
        images = _images(source)
        if images is None or CocoReader().matches(source):
            return False
        return not images or not _first(images).keys().isdisjoint(("sentences", "filename", "split"))

    def read(self, source: Source, keep_rejected: bool) -> Contents:
        """The photos of the file."""
        return read_karpathy(self.document(source, "karpathy"), keep_rejected)


@readers.register("coco")
class CocoReader(FileReader):
    """COCO's captions."""

    about: ClassVar[str] = (
        "JSON of COCO captions: images[] with id and file_name, annotations[] with image_id and caption"
    )

    def matches(self, source: Source) -> bool:
        """Whether it is a document with ``images`` and ``annotations``."""
        images = _images(source)
        return images is not None and ("annotations" in source.document or "file_name" in _first(images))

    def read(self, source: Source, keep_rejected: bool) -> Contents:
        """The photos of the file."""
        return read_coco(self.document(source, "coco"), keep_rejected)


@readers.register("table")
class TableReader(FileReader):
    """Tables, whatever they are written in."""

    about: ClassVar[str] = (
        "CSV, TSV, JSON lines, a JSON list or Parquet with a column image, and caption or captions"
    )

    def matches(self, source: Source) -> bool:
        """Whether it is a file with rows."""
        if source.is_folder:
            return False
        if not source.is_json or source.is_json_lines or isinstance(source.document, list):
            return True
        keys = {str(key).strip().lower() for key in source.document}
        if isinstance(source.document.get("images"), list):
            return False
        return not keys.isdisjoint(IMAGE_COLUMNS) or _is_rows(source.document.get("data"))

    def read(self, source: Source, keep_rejected: bool) -> Contents:
        """The photos of the rows, which are grouped by photo."""
        self.check(source, "table")
        return read_table(table_records(source), keep_rejected)


@readers.register("datasets")
class HuggingFaceReader(Reader):
    """Data sets of Hugging Face's package ``datasets``."""

    about: ClassVar[str] = "hf:NAME on the Hugging Face hub, or what its package datasets saved to a folder"
    by_name: ClassVar[bool] = True

    def matches(self, source: Source) -> bool:
        """Whether it is a name on the hub, or a folder that the package wrote."""
        return is_hub_name(source.path) or is_saved(source.path)

    def read(self, source: Source, keep_rejected: bool) -> Contents:
        """The photos of all splits, or of the one that the name asks for."""
        if not self.matches(source):
            raise ConfigError("not a data set of the package datasets; leave out the format datasets")
        contents, photos = read_hugging_face(source.path, keep_rejected)
        contents.in_tables = photos
        folder = name_and_split(source.path)[0]
        contents.root = folder if Path(folder).is_dir() else None
        return contents


@readers.register("folder")
class FolderReader(Reader):
    """Folders of photos."""

    about: ClassVar[str] = "a folder of photos, with metadata.jsonl, .csv or .parquet as Hugging Face has it"

    def matches(self, source: Source) -> bool:
        """Whether it is a folder."""
        return source.is_folder

    def read(self, source: Source, keep_rejected: bool) -> Contents:
        """The photos of the folder, with the captions of its metadata."""
        if not source.is_folder:
            raise ConfigError("no such folder; check the path, or leave out the format folder")
        files = files_of(source.path)

        def records(name: str) -> Iterator[Record]:
            place = source.path
            table = Source(join(place, name) if is_address(place) else str(Path(place, name)))
            return table_records(table) if table.data.strip() else iter(())

        return read_metadata(read_folder(files), files, records, keep_rejected)


def table_records(source: Source) -> Iterator[Record]:
    """The rows of a table with their places.

    Raises:
        ConfigError: if it cannot be read.
    """
    if source.is_parquet:
        return parquet_records(source.data)
    if not source.is_json:
        if (records := headerless_records(source.text)) is not None:
            return records
        return csv_records(source.text, source.path)
    if source.is_json_lines:
        return json_lines(source.text)
    document = source.document
    if isinstance(document, dict) and _is_rows(document.get("data")):
        document = document["data"]  # As TextCaps has it.
    return json_records(document if isinstance(document, list) else [document])


def _images(source: Source) -> list[Any] | None:
    """The ``images`` of a JSON document; None if it is something else."""
    if not source.is_json or source.is_json_lines or not isinstance(source.document, dict):
        return None
    images = source.document.get("images")
    return images if isinstance(images, list) else None


def _first(images: list[Any]) -> dict[str, Any]:
    return images[0] if images and isinstance(images[0], dict) else {}


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)

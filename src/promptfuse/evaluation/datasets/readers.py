"""Readers of data sets by format: those of the package, of programs and of other packages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from promptfuse._utils.addresses import is_address, is_folder
from promptfuse._utils.registry import Registry
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.documents import JSON_SUFFIXES, is_parquet, read_json
from promptfuse.evaluation.datasets.folder import is_photo
from promptfuse.evaluation.datasets.records import Contents
from promptfuse.evaluation.datasets.rows import shown
from promptfuse.evaluation.datasets.texts import decode, read_data

SHORT = "karpathy and coco (JSON), table (CSV, TSV, JSON lines, JSON list), folder"
"""The package's own formats in a message."""


class Source:
    """A file, a folder or an address of either; opened when a reader asks for what is in it.

    Args:
        path: a local path, or an address such as ``s3://...``.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @cached_property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return is_folder(self.path, ConfigError) if is_address(self.path) else Path(self.path).is_dir()

    @property
    def suffix(self) -> str:
        """The ending of its name, in lower case: ``.csv``."""
        return Path(self.path).suffix.lower()

    @cached_property
    def data(self) -> bytes:
        """The file's bytes.

        Raises:
            ConfigError: if it cannot be read.
        """
        return read_data(self.path)

    @property
    def is_parquet(self) -> bool:
        """Whether it is a Parquet file."""
        return not self.is_folder and is_parquet(self.data)

    @cached_property
    def text(self) -> str:
        """The file's text.

        Raises:
            ConfigError: if it is not text, is a photo, or has nothing in it.
        """
        if is_photo(Path(self.path).name) and self.data.lstrip()[:1] not in (b"{", b"["):
            raise ConfigError("is a photo, not a data set; give its folder, or use promptfuse caption")
        text = decode(self.data, self.path, f"give a text file or a folder (formats: {SHORT})")
        if not text.strip():
            raise ConfigError("is empty; give a file with photos")
        return text

    @property
    def is_json(self) -> bool:
        """Whether it looks like JSON or JSON lines.

        Raises:
            ConfigError: if its name says that it is, and it does not.
        """
        if self.is_folder or self.is_parquet:
            return False
        if self.text.lstrip()[0] in "{[":
            return True
        if self.suffix in JSON_SUFFIXES:
            raise ConfigError(f"not valid JSON (it begins with {shown(self.text.lstrip()[:20])}); correct it")
        return False

    @property
    def is_json_lines(self) -> bool:
        """Whether it is JSON lines: several lines, of which the first is complete."""
        return self.is_json and self._json[1]

    @property
    def document(self) -> Any:
        """The parsed JSON document; of JSON lines, the first line.

        Raises:
            ConfigError: if it is not valid JSON.
        """
        return self._json[0]

    @cached_property
    def _json(self) -> tuple[Any, bool]:
        """A parsed document, or the first line of JSON lines, and whether it is the latter."""
        # Karpathy's files have every caption a second time, cut into words: half of the memory.
        return read_json(self.text, self.path, hook=_without_tokens)


def _without_tokens(fields: dict[str, Any]) -> dict[str, Any]:
    if "raw" in fields:
        fields.pop("tokens", None)
    return fields


class Reader(ABC):
    """Reads the data sets of one format.

    Subclass it and register the class by ``@readers.register("name")`` or an entry point of the group
    ``promptfuse.datasets``; the name is what ``format`` calls it. Readers of other packages are asked first.

    Attributes:
        about: the format in a line, for lists.
        by_name: whether the name of a source tells the format; such readers are asked before others open it.
    """

    about: ClassVar[str] = ""
    by_name: ClassVar[bool] = False

    @abstractmethod
    def matches(self, source: Source) -> bool:
        """Whether a source is of this format; asked where no format is given."""

    @abstractmethod
    def read(self, source: Source, keep_rejected: bool) -> Contents:
        """The rows of a source, in its order.

        Args:
            source: of this format, or one that the user says is.
            keep_rejected: whether captions count that the data set marks as rejected.

        Raises:
            ConfigError: if it cannot be read; the message begins after the source's name.
        """


_OWN = "promptfuse.evaluation.datasets.formats"

readers: Registry[type[Reader]] = Registry(
    "format of data sets",
    "promptfuse.datasets",
    dict.fromkeys(("karpathy", "coco", "table", "folder", "datasets"), _OWN),
)
"""The readers by the name of their format."""


def find_reader(source: Source, format: str) -> tuple[str, Reader]:
    """The reader for a source, with the name of its format.

    Args:
        source: the source.
        format: a name, or ``auto`` for the first reader that the source matches.

    Raises:
        ConfigError: if there is none.
    """
    if format != "auto":
        return format, readers.get_item(format)()
    own = [name for name in readers if readers[name].__module__ == _OWN]
    order = [*(name for name in readers if name not in own), *own]
    for name in sorted(order, key=lambda name: not readers[name].by_name):
        reader = readers[name]()
        try:
            if reader.matches(source):
                return name, reader
        except ConfigError:
            if name in own:
                raise
    raise ConfigError(f"unknown format (it has {shown(sorted(source.document))}); formats: {SHORT}")

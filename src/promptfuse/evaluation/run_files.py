"""The files of a run over a data set, on a local path or at an address."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from promptfuse._utils.addresses import exists, is_address, is_folder, join, name_of, parent
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.texts import read_data

LINES, MANIFEST = "predictions.jsonl", "manifest.json"


def parts(source: str) -> list[str]:
    """The files of a run's folder, which nothing else may be written to; none of an address."""
    return [] if is_address(source) else [str(Path(source, name)) for name in (LINES, MANIFEST)]


@contextmanager
def local_copy(source: str) -> Iterator[Path]:
    """A local path as it is, or a temporary copy of what is at an address.

    Of a folder the lines and the manifest are copied, where they are there; of a file itself and the manifest
    beside it. Errors name what was given, not the copy.

    Raises:
        ConfigError: if something that is there cannot be read.
    """
    if not is_address(source):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="promptfuse-") as copy:
        folder, files, found = source, [LINES, MANIFEST], Path(copy)
        if not is_folder(source, ConfigError):
            folder, files, found = parent(source), [MANIFEST], Path(copy, name_of(source))
            found.write_bytes(read_data(source))
        for file in files:
            if exists(join(folder, file), ConfigError):
                Path(copy, file).write_bytes(read_data(join(folder, file)))
        try:
            yield found
        except ConfigError as error:
            given = folder.rstrip("/")
            raise ConfigError(str(error).replace(copy, given)) from None

"""The run folder of a configuration: whose run it holds, and what came of it.

Beside the search's own ``history.jsonl`` and ``state.json`` there are ``config.yaml``, the configuration
with all defaults, and in the end ``result.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from promptfuse.errors import ConfigError
from promptfuse.search import Result
from promptfuse.tasks.config.run import RunConfig
from promptfuse.whole_files import write_whole
from promptfuse.yaml_files import read_yaml

FREE = ("run_dir", "device", "batch_size")
"""What a run may be resumed with another value of."""


def claim_folder(folder: Path, config: RunConfig, *, write: bool = False) -> None:
    """Make sure that a folder holds no run of another configuration.

    Args:
        folder: the run folder.
        config: the configuration.
        write: also write the configuration there.

    Raises:
        ConfigError: if the folder is a file, or holds another run; the message names what differs.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"run folder {folder}: is a file; give a folder")
    path = folder / "config.yaml"
    if path.exists():
        before, now = (dict(_leaves(values)) for values in (read_yaml(path, "models: ..."), config.to_dict()))
        for key in [*now, *before]:
            was, given = before.get(key), now.get(key)
            if key.rpartition(".")[2] not in FREE and was != given:
                raise ConfigError(
                    f"run folder {folder}: it holds a run with {key} {was!r}, not {given!r}; "
                    "give another folder, or the settings of that run"
                )
    if write:
        write_whole(path, config.to_yaml())


def write_result(folder: Path, result: Result) -> None:
    """Write ``result.json``: all of the result but the steps, which ``history.jsonl`` holds."""
    values = result.to_dict()
    del values["history"]
    write_whole(folder / "result.json", json.dumps(values, ensure_ascii=False, indent=1) + "\n")


def _leaves(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested fields by dotted keys; lists count as values."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, values

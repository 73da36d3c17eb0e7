"""The run folder of a configuration: whose run it holds, and what came of it.

Beside the search's own ``history.jsonl`` and ``state.json`` there are ``config.yaml``, the configuration
with all defaults, and in the end ``result.json``.
"""

from __future__ import annotations

import json
from pathlib import Path

from promptfuse.errors import ConfigError
from promptfuse.resuming import require_same_values
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
        require_same_values(folder, read_yaml(path, "models: ..."), config.to_dict(), free=FREE)
    if write:
        write_whole(path, config.to_yaml())


def write_result(folder: Path, result: Result) -> None:
    """Write ``result.json``: all of the result but the steps, which ``history.jsonl`` holds."""
    values = result.to_dict()
    del values["history"]
    write_whole(folder / "result.json", json.dumps(values, ensure_ascii=False, indent=1) + "\n")

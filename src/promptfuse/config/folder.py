"""The run folder of a configuration: whose run it holds, and what came of it.

Beside the search's own ``history.jsonl`` and ``state.json`` there are ``config.yaml``, the configuration
with all defaults, and in the end ``result.json``.
"""

from __future__ import annotations

import json
from pathlib import Path

from promptfuse._utils.atomic_files import atomic_write
from promptfuse._utils.resume import check_resumable
from promptfuse._utils.yaml_files import dump_yaml, read_yaml
from promptfuse.config.run import SearchConfig
from promptfuse.errors import ConfigError
from promptfuse.search import Result
from promptfuse.search.resume import LIMITS

FREE = (("run_dir",), ("device",), ("batch_size",), ("models", "*", "device"))
"""Where settings are that a run may be resumed with another value of."""

RESULT = "result.json"


def claim_folder(folder: Path, config: SearchConfig, *, write: bool = False) -> None:
    """Make sure that a folder has no run of another configuration and no files that promptfuse did not write.

    Limits such as the most steps may differ where there is a saved search, which looks at them itself.

    Args:
        folder: the run folder.
        config: the configuration.
        write: also write the configuration there.

    Raises:
        ConfigError: if the folder is a file, or holds another run or a result that no run wrote; the message
            names what differs.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"run folder {folder}: is a file; give a folder")
    path = folder / "config.yaml"
    found = path.exists()
    if found:
        free = (*FREE, *LIMITS) if (folder / "state.json").exists() else FREE
        check_resumable(folder, read_yaml(path, "models: ..."), config.to_dict(), free=free)
    _require_own_result(folder, found)
    if write and not (found and _needs_no_change(path, config)):
        atomic_write(path, config.to_yaml())


def _needs_no_change(path: Path, config: SearchConfig) -> bool:
    """Whether a file says the same already, or was edited by hand: then it may have comments."""
    known = read_yaml(path, "models: ...")
    return known == config.to_dict() or path.read_text(encoding="utf-8") != dump_yaml(known)


def _require_own_result(folder: Path, found: bool) -> None:
    """Raise ``ConfigError`` for a ``result.json`` that no search of such a folder wrote."""
    path = folder / RESULT
    if not path.exists():
        return
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        own = found and values.keys() >= {"text", "value", "terms", "exact_evaluations", "versions"}
    except (OSError, ValueError, AttributeError):
        own = False
    if not own:
        raise ConfigError(
            f"run folder {folder}: its {RESULT} belongs to another run and would be replaced; give another "
            "folder"
        )


def write_result(folder: Path, result: Result) -> None:
    """Write ``result.json``: all of the result but the steps, which ``history.jsonl`` holds."""
    values = result.to_dict()
    del values["history"]
    atomic_write(folder / RESULT, json.dumps(values, ensure_ascii=False, indent=1) + "\n")

"""Searches on disk: a folder with the history of a run and the state to resume it from."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from promptfuse.errors import ConfigError
from promptfuse.search.hypothesis import Step


def tensor_to_json(tensor: Tensor) -> dict[str, Any]:
    """A float32 tensor as JSON values, bit for bit."""
    array = np.ascontiguousarray(tensor.detach().cpu().to(torch.float32).numpy())
    return {
        "shape": list(array.shape),
        "float32": base64.b64encode(array.astype("<f4").tobytes()).decode("ascii"),
    }


def tensor_from_json(values: dict[str, Any]) -> Tensor:
    """Undo ``tensor_to_json``."""
    array = np.frombuffer(base64.b64decode(values["float32"]), dtype="<f4")
    return torch.from_numpy(array.astype(np.float32).reshape(values["shape"]))


def given(value: Any) -> Any:
    """Settings as JSON gives them back, without those that are None: later versions may have more."""
    if isinstance(value, dict):
        return {key: given(item) for key, item in value.items() if item is not None}
    return [given(item) for item in value] if isinstance(value, list | tuple) else value


class RunFolder:
    """The folder of one search.

    ``history.jsonl`` has a line for each step, ``state.json`` what a resumed search needs besides. The
    line is written first and the state put in place by a rename, so whenever the process dies the state
    is whole, and at most one line is ahead of it; that line is cut off when the search is resumed.

    Args:
        path: the folder; made if it is not there.

    Raises:
        ConfigError: if it cannot be made or read, or what is in it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.history_path = self.path / "history.jsonl"
        self.state_path = self.path / "state.json"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"run folder {str(self.path)!r}: {error.strerror}; give a folder that can be written to"
            ) from None

    def load(self) -> dict[str, Any] | None:
        """The state with its history, None if no step was saved yet; lines ahead of it are cut off."""
        if not self.state_path.exists():
            self.history_path.unlink(missing_ok=True)
            return None
        try:
            state: dict[str, Any] = json.loads(self.state_path.read_text(encoding="utf-8"))
            count = state.pop("history_length")
            lines = []
            if count:
                lines = self.history_path.read_bytes().splitlines(keepends=True)[:count]
            state["history"] = [json.loads(line) for line in lines]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise self._damaged() from None
        if len(lines) != count:
            raise self._damaged()
        if self.history_path.exists():
            os.truncate(self.history_path, sum(map(len, lines)))
        return state

    def save(self, step: Step, state: dict[str, Any]) -> None:
        """Add a step's line, then replace the state.

        Args:
            step: the step just taken.
            state: the search's state; its history is left out, since the lines hold it.
        """
        with self.history_path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(step.to_dict(), ensure_ascii=False) + "\n")
            stream.flush()
        state = {key: value for key, value in state.items() if key != "history"}
        state["history_length"] = step.number
        part = self.state_path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as stream:
            json.dump(state, stream, ensure_ascii=False)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(self.state_path)

    def _damaged(self) -> ConfigError:
        return ConfigError(
            f"run folder {str(self.path)!r}: its files are damaged; delete it or give another folder"
        )

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

from promptfuse._utils.atomic_files import atomic_write
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

    ``history.jsonl`` has a line for each step, ``state.json`` what a resumed search needs besides. A first
    state is there before the first line, a step's line is written before its state, and the state is put in
    place by a rename. So whenever the process dies the state is whole, at most one line is ahead of it, and a
    history without a state is not ours. The line that is ahead is cut off when the search takes its next
    step; nothing else that is found in the folder is removed or replaced.

    Args:
        path: the folder; made if it is not there.

    Raises:
        ConfigError: if it cannot be made or read, or what is in it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, str | os.PathLike):
            raise ConfigError(f"run folder {path!r:.60} is not a path; give one")
        self.path = Path(path)
        self.history_path = self.path / "history.jsonl"
        self.state_path = self.path / "state.json"
        self._ahead_of: int | None = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"run folder {str(self.path)!r}: {error.strerror}; give a folder that can be written to"
            ) from None

    def load(self) -> dict[str, Any] | None:
        """The state with its history; None if no search was begun here yet.

        Raises:
            ConfigError: if files of these names are there that no search wrote, or that are damaged.
        """
        if not self.state_path.exists():
            if self.history_path.exists() and (
                not self.history_path.is_file() or self.history_path.stat().st_size
            ):
                raise ConfigError(
                    f"run folder {str(self.path)!r}: it has a {self.history_path.name} but no "
                    f"{self.state_path.name}, so no search wrote it; give another folder"
                )
            return None
        try:
            state: dict[str, Any] = json.loads(self.state_path.read_text(encoding="utf-8"))
            count = state.pop("history_length")
            whole = self.history_path.read_bytes() if count or self.history_path.exists() else b""
            lines = whole.splitlines(keepends=True)[:count]
            state["history"] = [json.loads(line) for line in lines]
            numbers = [Step.from_dict(step).number for step in state["history"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise self._damaged() from None
        length = sum(map(len, lines))
        if numbers != list(range(1, count + 1)) or not _is_next(whole[length:], count + 1):
            raise self._damaged()
        self._ahead_of = length if len(whole) > length else None
        return state

    def begin(self, state: dict[str, Any]) -> None:
        """Write the state of a search that has taken no step yet, if there is none: the folder is its own."""
        if not self.state_path.exists():
            self._write(state, 0)

    def save(self, step: Step, state: dict[str, Any]) -> None:
        """Add a step's line, then replace the state.

        Args:
            step: the step just taken.
            state: the search's state; its history is left out, since the lines hold it.
        """
        if self._ahead_of is not None:
            os.truncate(self.history_path, self._ahead_of)
            self._ahead_of = None
        with self.history_path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(step.to_dict(), ensure_ascii=False) + "\n")
            stream.flush()
        self._write(state, step.number)

    def _write(self, state: dict[str, Any], length: int) -> None:
        values = {key: value for key, value in state.items() if key != "history"}
        atomic_write(self.state_path, json.dumps({**values, "history_length": length}, ensure_ascii=False))

    def _damaged(self) -> ConfigError:
        return ConfigError(
            f"run folder {str(self.path)!r}: its files are damaged or not from a search; give another folder"
        )


def _is_next(rest: bytes, number: int) -> bool:
    """Whether bytes are nothing, or the line of a step with this number, whole or cut off."""
    begin = f'{{"number": {number}, '.encode()
    return rest[: len(begin)] == begin[: len(rest)] and b"\n" not in rest[:-1]

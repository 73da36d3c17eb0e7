"""What turns texts into vectors: a model, or a function or command of which only the answers are known."""

from __future__ import annotations

import json
import shlex
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from os import PathLike
from threading import Thread
from typing import Any, TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.errors import ConfigError, TextError
from promptfuse.models import ImageTextModel, Model, SentenceEncoder, load_model
from promptfuse.objectives.checks import require_model_kind
from promptfuse.objectives.vectors import unit_vector

EncoderLike: TypeAlias = str | PathLike[str] | Model | Callable[[list[str]], Any]
"""A model by name, a loaded one, or a function from a list of texts to as many vectors."""

BATCH = 64
"""Texts that are encoded at a time."""


class TextEncoder(ABC):
    """Turns texts into vectors of length 1.

    Attributes:
        name: what messages call it.
        identity: what tells it from others.
    """

    name: str
    identity: str

    def features(self, texts: Sequence[str]) -> Float[Tensor, "{len(texts)} d"]:
        """The vectors of at least one text, (len(texts), d), in float32, on the CPU.

        Raises:
            TextError: if a text is empty or too long.
            ConfigError: if a function or command gives no valid vector.
        """
        parts = [list(texts[first : first + BATCH]) for first in range(0, len(texts), BATCH)]
        return torch.cat([self._read(part) for part in parts])

    def each(self, texts: Sequence[str]) -> list[Tensor | TextError]:
        """The vectors of texts, (d,) each, as they are when read alone; an error where there is none.

        Raises:
            ConfigError: if a function or command gives no valid vector.
        """
        found: list[Tensor | TextError] = []
        for text in texts:
            try:
                found.append(self.features([text])[0])
            except TextError as error:
                found.append(error)
        return found

    @abstractmethod
    def _read(self, texts: list[str]) -> Float[Tensor, "{len(texts)} d"]:
        """The vectors of a few texts."""


class ModelEncoder(TextEncoder):
    """A sentence encoder, or the text tower of an image-text model.

    Args:
        model: the model.

    Raises:
        ModelError: if it is of another kind.
    """

    def __init__(self, model: Model) -> None:
        checked = require_model_kind(model, "an inversion", SentenceEncoder, ImageTextModel)
        self.model = cast("SentenceEncoder | ImageTextModel", checked)
        self.name, self.identity = model.name, model.identity

    @torch.no_grad()
    def _read(self, texts: list[str]) -> Float[Tensor, "{len(texts)} d"]:
        return self.model.text_features(self.model.encode(texts)).float().cpu()


class BlackBoxEncoder(TextEncoder):
    """A function from texts to vectors, which has no gradient.

    Args:
        function: from a list of texts to as many vectors, of one width.
        name: what messages call it.
    """

    def __init__(self, function: Callable[[list[str]], Any], name: str = "") -> None:
        named = function if hasattr(function, "__qualname__") else type(function)
        self.function = function
        self.name = name or f"{named.__module__}.{named.__qualname__}"
        self.identity = self.name
        self._width: int | None = None

    def each(self, texts: Sequence[str]) -> list[Tensor | TextError]:
        """The vectors of texts, (d,) each; it is asked for several at a time, which may cost less.

        Raises:
            ConfigError: if the function gives no valid vector.
        """
        return list(self.features(texts)) if texts else []

    def _read(self, texts: list[str]) -> Float[Tensor, "{len(texts)} d"]:
        answer = self.function(texts)
        rows: list[Any] = list(answer) if hasattr(answer, "__iter__") else []
        if len(rows) != len(texts):
            raise ConfigError(
                f"encoder {self.name}: gave {len(rows)} vectors for {len(texts)} texts; give one for each"
            )
        found = []
        for text, row in zip(texts, rows, strict=True):
            try:
                found.append(unit_vector(row, self._width, "its first answer"))
            except ConfigError as error:
                raise ConfigError(f"encoder {self.name}: its vector for {text!r:.60} {error}") from None
            self._width = len(found[0])
        return torch.stack(found)


class CommandEncoder:
    """A command that is given texts and answers with vectors; a function for ``BlackBoxEncoder``.

    Every line of its input is a JSON list of texts, and for each of them it writes a line with a JSON list of
    numbers. It is started with the first texts, without a shell, and goes on to the end of its input.

    Args:
        command: the program with its arguments, as a shell would split them.

    Raises:
        ConfigError: if the command is empty or has an open quote.
    """

    def __init__(self, command: str) -> None:
        try:
            self.arguments = shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"encoder command {command!r}: {error}; close its quotes") from None
        if not self.arguments:
            raise ConfigError("encoder command: is empty; give a program with its arguments")
        self.command = command
        self._process: subprocess.Popen[str] | None = None

    def __reduce__(self) -> tuple[type[CommandEncoder], tuple[str]]:
        """Another process starts a command of its own."""
        return type(self), (self.command,)

    def __call__(self, texts: list[str]) -> list[Any]:
        """The vectors of texts.

        Raises:
            ConfigError: if the command cannot be started, ends too early, or answers with something else.
        """
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        # Written by another thread: with both pipes full, neither side would go on.
        writer = Thread(target=self._write, args=(process, json.dumps(texts) + "\n"), daemon=True)
        writer.start()
        found = [self._answer(process) for _ in texts]
        writer.join()
        return found

    def close(self) -> None:
        """End the command."""
        if self._process is not None:
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                with suppress(OSError):  # It may have gone with a line that it had not read.
                    stream.close()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            try:
                self._process = subprocess.Popen(
                    self.arguments,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                )
            except OSError as error:
                raise ConfigError(
                    f"encoder command {self.command!r}: {error.strerror or error}; check the program's name"
                ) from None
        return self._process

    @staticmethod
    def _write(process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        with suppress(OSError, ValueError):  # The command has ended, which its missing answer tells.
            process.stdin.write(line)
            process.stdin.flush()

    def _answer(self, process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.close()
            raise ConfigError(
                f"encoder command {self.command!r}: ended with code {code} before it answered; it must write "
                "a line with a list of numbers for each text"
            )
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            self.close()
            raise ConfigError(
                f"encoder command {self.command!r}: wrote {line.strip()!r:.60}, which is not JSON; write a "
                "list of numbers"
            ) from None


def text_encoder(encoder: EncoderLike, device: str | torch.device = "cpu") -> TextEncoder:
    """The encoder of a name, a model or a function.

    Args:
        encoder: a Hugging Face id, a local folder, an embedded model's name, a loaded model, or a function
            from a list of texts to as many vectors.
        device: where a model that is given by name goes.

    Raises:
        ModelError: if a model cannot be loaded or is not an encoder of texts.
        ConfigError: for anything else.
    """
    if isinstance(encoder, CommandEncoder):
        return BlackBoxEncoder(encoder, encoder.command)
    if isinstance(encoder, Model):
        return ModelEncoder(encoder)
    if isinstance(encoder, str | PathLike):
        return ModelEncoder(load_model(encoder, device=device))
    if isinstance(encoder, torch.nn.Module) or not callable(encoder):
        raise ConfigError(
            f"encoder: {encoder!r:.60} is not an encoder; give a model's name, load_model(...), or a "
            "function from a list of texts to vectors"
        )
    return BlackBoxEncoder(encoder)

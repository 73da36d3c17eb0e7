"""Captions as lines of a file: what a run writes, and what scores and reports read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, ConfigDict, TypeAdapter

from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets.texts import decode, is_wide, numbered_lines, read_data


@dataclass(frozen=True)
class Prediction:
    """What became of one photo: a caption, or the reason why there is none.

    Attributes:
        id: the photo's id in its data set.
        image: path or address of the photo.
        text: the caption; None if it failed.
        error: the reason why there is no caption; None if there is one.
        value: the objective of the text, scored from scratch.
        terms: its unweighted losses by term.
        weights: the weights of the terms.
        complete: whether the text came to an end by itself.
        exact_evaluations: how many texts were scored exactly.
        seconds: what the photo took. With several in flight, its share of their time.
        seed: the seed of whatever was drawn.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True)

    id: Annotated[str, BeforeValidator(str)]
    image: str
    text: str | None = None
    error: str | None = None
    value: float | None = None
    terms: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    complete: bool = False
    exact_evaluations: int = 0
    seconds: float = 0.0
    seed: int = 0

    def to_line(self) -> str:
        """One line of JSON, with its end."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


def iterate_predictions(path: Path) -> Iterator[Prediction]:
    """The lines of a ``predictions.jsonl`` one by one; a last line that was cut off is left out.

    One that is whole but for its line feed counts: no part of a JSON object is one itself.

    Raises:
        ConfigError: if the file cannot be read, or a line is not a prediction.
    """
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n") and not is_whole(line):
                    return
                yield _read_line(path, number, line)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a run's folder") from None


def read_predictions(path: Path) -> list[Prediction]:
    """All lines at once, also of a file that somebody saved with other line ends or in UTF-16.

    A last line that was cut off is left out, as `iterate_predictions` does.

    Raises:
        ConfigError: if the file cannot be read, or a line is not a prediction.
    """
    return parse_predictions(path, read_data(str(path)))


def parse_predictions(path: Path, data: bytes) -> list[Prediction]:
    """`read_predictions` of a file's bytes."""
    whole = max(data.rfind(end) for end in (b"\n", b"\r")) + 1
    if not is_wide(data) and not is_whole(data[whole:]):
        data = data[:whole]
    text = decode(data, str(path), "give a run's folder")
    return [_read_line(path, number, line) for number, line in numbered_lines(text)]


def is_whole(line: bytes) -> bool:
    """Whether a line that lacks its line feed lacks nothing else."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


_PREDICTION = TypeAdapter(Prediction)


def _read_line(path: Path, number: int, line: bytes | str) -> Prediction:
    """A line; keys that are not known are ignored, so that files of later versions open."""
    try:
        return _PREDICTION.validate_json(line)
    except ValueError:
        raise ConfigError(
            f"{path}: line {number} is not a prediction; remove the line, its photo is done again"
        ) from None

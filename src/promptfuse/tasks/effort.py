"""How hard to search, in one word."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError
from promptfuse.models import Preset

Effort = Literal["fast", "default", "thorough"]
"""How many texts a search scores: factors on a preset's numbers."""


@dataclass(frozen=True)
class Scale:
    """How an effort changes a preset's numbers.

    Attributes:
        beams: factor on the texts that are kept at each step; rounded up.
        candidates: factor on the exact evaluations per beam and step.
        patience: steps without a better complete text before the search ends.
    """

    beams: float
    candidates: int
    patience: int


EFFORTS: dict[Effort, Scale] = {
    "fast": Scale(beams=1 / 3, candidates=1, patience=3),
    "default": Scale(beams=1, candidates=1, patience=4),
    "thorough": Scale(beams=2, candidates=2, patience=8),
}
"""The efforts, as factors on a preset's numbers."""


@dataclass(frozen=True)
class Extent:
    """How many texts a search scores.

    Attributes:
        beams: texts kept at each step.
        candidates: exact evaluations per beam and step.
        patience: steps without a better complete text before the search ends.
    """

    beams: int
    candidates: int
    patience: int


def check_effort(effort: Any) -> Effort:
    """Check an effort; None means ``default``.

    Raises:
        ConfigError: if the effort is unknown; the message lists the efforts.
    """
    wanted = "default" if effort is None else effort
    for name in EFFORTS:
        if wanted == name:
            return name
    raise ConfigError(f"there is no effort {effort!r:.60}; {nearest(str(effort), EFFORTS)}")


def extent(preset: Preset, effort: Any = None) -> Extent:
    """How many texts a search with a preset scores at an effort.

    Raises:
        ConfigError: if the effort is unknown.
    """
    scale = EFFORTS[check_effort(effort)]
    return Extent(math.ceil(preset.beams * scale.beams), preset.candidates * scale.candidates, scale.patience)

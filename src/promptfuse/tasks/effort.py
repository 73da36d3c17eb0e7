"""How hard to search, in one word."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError
from promptfuse.models import Preset

Effort = Literal["fast", "default", "thorough"]
"""What a search may cost; see ``EFFORTS``."""


@dataclass(frozen=True)
class Scale:
    """What an effort makes of a preset's numbers.

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
"""What each effort is, as factors on the preset's numbers."""


@dataclass(frozen=True)
class Extent:
    """How many texts a search looks at.

    Attributes:
        beams: texts kept at each step.
        candidates: exact evaluations per beam and step.
        patience: see ``Stopping``.
    """

    beams: int
    candidates: int
    patience: int


def check_effort(effort: Any) -> Effort:
    """An effort, ``default`` for None.

    Raises:
        ConfigError: if there is no such effort; the message lists those there are.
    """
    wanted = "default" if effort is None else effort
    for name in EFFORTS:
        if wanted == name:
            return name
    raise ConfigError(f"no effort {effort!r:.60}; {nearest(str(effort), EFFORTS)}")


def extent(preset: Preset, effort: Any = None) -> Extent:
    """How many texts a search of a preset looks at with an effort.

    Raises:
        ConfigError: if there is no such effort.
    """
    scale = EFFORTS[check_effort(effort)]
    return Extent(math.ceil(preset.beams * scale.beams), preset.candidates * scale.candidates, scale.patience)

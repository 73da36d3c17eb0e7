"""Steers: labels of classifiers that a caption is drawn to, or kept away from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from promptfuse.errors import ConfigError
from promptfuse.models import Preset
from promptfuse.objectives.base import check_weight

_EXAMPLE = "write MODEL:LABEL=WEIGHT, e.g. sentiment:positive=1.5"


@dataclass(frozen=True)
class Steer:
    """A label of a classifier as a term of the caption task.

    Attributes:
        model: a Hugging Face id, a local folder, an embedded model's name, or ``sentiment`` for the preset's
            classifier.
        label: one of its labels; case does not matter.
        weight: factor of the label's NLL; negative to stay away from the label. None takes the preset's
            weight of the sentiment.
    """

    model: str
    label: str
    weight: float | None = None

    @classmethod
    def parse(cls, text: str) -> Steer:
        """Read ``MODEL:LABEL=WEIGHT`` or ``MODEL:LABEL``.

        It is read from the right, so that the model's path may hold ``:`` and ``=``, and the label ``=``.

        Raises:
            ConfigError: if a part is missing, or the weight is no number, or one that no term may have.
        """
        model, _, rest = text.rpartition(":")
        label, equals, number = rest.rpartition("=") if "=" in rest else (rest, "", "")
        if not model.strip() or not label.strip():
            raise ConfigError(f"steer {text!r} names no model and label; {_EXAMPLE}")
        if not equals:
            return cls(model, label)
        try:
            weight = float(number)
        except ValueError:
            raise ConfigError(f"steer {text!r}: {number!r} is not a number; {_EXAMPLE}") from None
        check_weight(weight, f"steer {text!r}")
        return cls(model, label, weight)

    def under(self, preset: Preset) -> Steer:
        """The steer with the preset's classifier for ``sentiment``, and its label for ``positive``."""
        if self.model not in ("sentiment", preset.sentiment):
            return self
        return replace(self, model=preset.sentiment, label=preset.labels.get(self.label, self.label))

    def __str__(self) -> str:
        """What ``parse`` reads."""
        weight = "" if self.weight is None else f"={self.weight!r}"
        return f"{self.model}:{self.label}{weight}"


Steers = str | Steer | Sequence[str | Steer]
"""One steer or several, spelled out or not."""


def read_steers(steer: Steers) -> dict[str, Steer]:
    """Steers by the names of their terms: ``steer:LABEL``, with numbers behind those that come again.

    Raises:
        ConfigError: if one cannot be read, or is given twice.
    """
    several = [steer] if isinstance(steer, str | Steer) else steer
    found: dict[str, Steer] = {}
    for one in several:
        read = Steer.parse(one) if isinstance(one, str) else one
        if any((read.model, read.label) == (other.model, other.label) for other in found.values()):
            raise ConfigError(f"steer {read.model}:{read.label} is given twice; give it once, with a weight")
        name, number = f"steer:{read.label}", 2
        while name in found:
            name, number = f"steer:{read.label}_{number}", number + 1
        found[name] = read
    return found

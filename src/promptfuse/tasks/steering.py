"""Steers: labels of classifiers to steer a caption towards, or away from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, TypeAlias

from promptfuse.errors import ConfigError
from promptfuse.models import Preset
from promptfuse.objectives.base import check_weight

_EXAMPLE = "write MODEL:LABEL=WEIGHT, e.g. sentiment:positive=1.5"


@dataclass(frozen=True)
class Steer:
    """A classifier's label as a term of the caption task.

    Attributes:
        model: a Hugging Face id, a local folder, an embedded model's name, or ``sentiment`` for the preset's
            classifier.
        label: one of its labels; case does not matter.
        weight: factor of the label's negative log-probability; negative to steer away. None means the
            preset's sentiment weight.

    Raises:
        ConfigError: if the model or the label is not a text, or the weight is not valid.
    """

    model: str
    label: str
    weight: float | None = None

    def __post_init__(self) -> None:
        for part in (self.model, self.label):
            if not isinstance(part, str) or not part.strip():
                raise ConfigError(
                    f"steer {self.model!r}, {self.label!r} needs a model and a label; {_EXAMPLE}"
                )
        if self.weight is not None:
            _check_number(self.weight, f"steer '{self.model}:{self.label}'")

    @classmethod
    def parse(cls, text: str) -> Steer:
        """Read ``MODEL:LABEL=WEIGHT`` or ``MODEL:LABEL``.

        It is read from the right, so the model's path may contain ``:`` and ``=``, and the label ``=``.

        Raises:
            ConfigError: if a part is missing, or the weight is not a valid number.
        """
        model, _, rest = text.rpartition(":")
        label, equals, number = rest.rpartition("=") if "=" in rest else (rest, "", "")
        if not model.strip() or not label.strip():
            raise ConfigError(f"steer {text!r} needs a model and a label; {_EXAMPLE}")
        model, label = model.strip(), label.strip()
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
        if preset.sentiment is None:
            raise ConfigError(f"steer '{self}': the preset has no sentiment classifier; name the model")
        return replace(self, model=preset.sentiment, label=preset.labels.get(self.label, self.label))

    def __str__(self) -> str:
        """The form that ``parse`` reads."""
        if self.weight is None:
            return f"{self.model}:{self.label}"
        number = self.weight if isinstance(self.weight, int) else float(self.weight)
        return f"{self.model}:{self.label}={number!r}"


Steers: TypeAlias = str | Steer | Sequence[Any] | Mapping[str, Any] | None
"""One steer or several: a text or a ``Steer``, a list of those, or ``{"MODEL:LABEL": WEIGHT}``.

A list may also contain such mappings, and pairs ``("MODEL:LABEL", WEIGHT)``; a mapping may also be
``{MODEL: {LABEL: WEIGHT}}``. None means no steer.
"""


def read_steers(steer: Steers) -> dict[str, Steer]:
    """Steers by the names of their terms: ``steer:LABEL``, with a number after a name that occurs again.

    Args:
        steer: one or several, in any form that ``Steers`` allows.

    Raises:
        ConfigError: if one cannot be read, or is given twice.
    """
    found: dict[str, Steer] = {}
    for read in _spelled(steer):
        if any((read.model, read.label) == (other.model, other.label) for other in found.values()):
            raise ConfigError(f"steer {read.model}:{read.label} is given twice; give it once, with a weight")
        name, number = f"steer:{read.label}", 2
        while name in found:
            name, number = f"steer:{read.label}_{number}", number + 1
        found[name] = read
    return found


def spell_steers(steer: Steers) -> list[str]:
    """Steers as texts that ``Steer.parse`` reads; texts stay as they are.

    Args:
        steer: one or several, in any form that ``Steers`` allows.

    Raises:
        ConfigError: if one cannot be read, or is given twice.
    """
    read = read_steers(steer)
    if isinstance(steer, str):
        return [steer]
    if isinstance(steer, Sequence) and all(isinstance(one, str) for one in steer):
        return list(steer)
    return [str(one) for one in read.values()]


def _spelled(steer: Any) -> Iterator[Steer]:
    """Each steer of any spelling, in order."""
    if steer is None:
        return
    if isinstance(steer, Steer):
        yield steer
    elif isinstance(steer, str):
        yield Steer.parse(steer)
    elif isinstance(steer, Mapping):
        for key, value in steer.items():
            if isinstance(value, Mapping):
                for label, weight in value.items():
                    yield Steer(key, label, weight)
            else:
                yield _weighed(key, value)
    elif not isinstance(steer, Sequence):
        raise ConfigError(
            f"steer {steer!r:.60} is not valid; {_EXAMPLE}, a list of such, or {{MODEL:LABEL: WEIGHT}}"
        )
    elif len(steer) == 2 and _is_number(steer[1]):
        yield _weighed(*steer)
    elif len(steer) == 3 and _is_number(steer[2]):
        yield Steer(*steer)
    else:
        for one in steer:
            yield from _spelled(one)


def _weighed(steer: Any, weight: Any) -> Steer:
    """The steer that a text or a ``Steer`` names, with a separate weight."""
    named = Steer.parse(steer) if isinstance(steer, str) else steer
    if not isinstance(named, Steer):
        raise ConfigError(f"steer {steer!r:.60} needs a model and a label; {_EXAMPLE}")
    if weight is None:
        return named
    if named.weight is not None:
        raise ConfigError(f"steer '{named}' has a second weight, {weight}; give one")
    return replace(named, weight=weight)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_number(weight: Any, name: str) -> None:
    if not _is_number(weight):
        raise ConfigError(f"weight of {name}: {weight!r:.60} is not a number; {_EXAMPLE}")
    check_weight(weight, name)

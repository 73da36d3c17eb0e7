"""What the search moves: texts with their tokens and values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Hypothesis:
    """A text that has been scored exactly.

    Attributes:
        text: the string that every model reads.
        ids: its tokens under the primary language model, without special tokens.
        nll: summed NLL of those tokens in nats, under the primary; None where nothing needed it.
        value: the objective; infinite for a start that is not scored.
        terms: unweighted losses by term.
        complete: whether the text may be returned as it is: the language model ends it here, or the
            method works on whole texts; and it has all that the constraints ask of a complete text.
        parent: the text that it was made from.
    """

    text: str
    ids: tuple[int, ...]
    nll: float | None
    value: float = float("inf")
    terms: dict[str, float] = field(default_factory=dict)
    complete: bool = False
    parent: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "ids": list(self.ids)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Hypothesis:
        """Undo ``to_dict``."""
        return cls(**{**values, "ids": tuple(values["ids"])})


@dataclass(frozen=True)
class Proposal:
    """A change of the text that has not been scored yet.

    Attributes:
        text: the string.
        ids: its tokens under the primary.
        nll: summed NLL of the tokens where it is known from the parent's next-token distribution.
        parent: index of the beam that it comes from; -1 for a start that is scored as it stands.
        estimates: the guidance's estimate of each term's loss, where there is one.
    """

    text: str
    ids: tuple[int, ...]
    nll: float | None
    parent: int
    estimates: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One step of the search, as callbacks and the trace see it.

    Attributes:
        number: counted from 1.
        beams: the hypotheses that the next step starts from, best first.
        best: the best complete text so far, or the best beam if there is none yet.
        proposed: how many texts were scored exactly in this step.
        exact_evaluations: the same since the start.
        gains: the factor by which the guidance shrinks its estimates, by term.
        seconds: wall time since the start.
        stage: which method of a chain took the step, counted from 1.
    """

    number: int
    beams: tuple[Hypothesis, ...]
    best: Hypothesis
    proposed: int
    exact_evaluations: int
    gains: dict[str, float]
    seconds: float
    stage: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        beams = [beam.to_dict() for beam in self.beams]
        return {**self.__dict__, "beams": beams, "best": self.best.to_dict(), "gains": dict(self.gains)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Step:
        """Undo ``to_dict``."""
        beams = tuple(Hypothesis.from_dict(beam) for beam in values["beams"])
        return cls(**{**values, "beams": beams, "best": Hypothesis.from_dict(values["best"])})

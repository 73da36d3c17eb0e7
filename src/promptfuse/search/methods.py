"""Settings of the proposal methods: one flat, frozen dataclass each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from promptfuse.errors import ConfigError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class AutoDAN:
    """Left-to-right search: append the token that the language model and the gradients like best.

    After Zhu et al. (2023), "AutoDAN", as Williams & Kolter (2024, section 4) use it: candidates are
    ranked by the language model's log-probability and the gradients that the adapter carries over,
    and the best of them are scored exactly.

    Attributes:
        candidates: exact evaluations per beam and step. The paper's number is 256.
        transport: what carries gradients to the primary's tokens: ``lexical`` (exact sub-tokens of
            each word; our default, since it points better than the map), ``t-product`` (the paper's),
            or ``none`` (the language model alone proposes).
        gain: the starting factor on estimated changes. The linear estimate overshoots, so it is
            shrunk; the paper uses it whole (1.0), which ranks worse than no gradient at all here.
        adapt_gain: refit the factor from the true changes seen so far.
        subtokens: the longest word in secondary tokens whose positions have gradients of their own.
    """

    candidates: int = 256
    transport: Literal["lexical", "t-product", "none"] = "lexical"
    gain: float = 0.2
    adapt_gain: bool = True
    subtokens: int = 2

    def __post_init__(self) -> None:
        _require(self.candidates >= 1, f"candidates: {self.candidates} is too few; give 1 or more")
        _require(
            self.transport in ("lexical", "t-product", "none"),
            f"transport: {self.transport!r} is unknown; choose lexical, t-product or none",
        )
        _require(0 <= self.gain <= 10, f"gain: {self.gain} is out of range; give 0 to 10")
        _require(1 <= self.subtokens <= 8, f"subtokens: {self.subtokens} is out of range; give 1 to 8")


@dataclass(frozen=True)
class RandomAppend:
    """Left-to-right search with tokens drawn uniformly: the baseline that knows nothing.

    Attributes:
        candidates: exact evaluations per beam and step.
    """

    candidates: int = 256

    def __post_init__(self) -> None:
        _require(self.candidates >= 1, f"candidates: {self.candidates} is too few; give 1 or more")


Method = AutoDAN | RandomAppend
"""Any proposal method."""


@dataclass(frozen=True)
class BeamSearch:
    """Keep the ``width`` best distinct texts of each step.

    Attributes:
        width: the paper's number is 4.
    """

    width: int = 4

    def __post_init__(self) -> None:
        _require(self.width >= 1, f"beams: {self.width} is too few; give 1 or more")


@dataclass(frozen=True)
class Greedy(BeamSearch):
    """Keep the single best text of each step."""

    width: int = 1

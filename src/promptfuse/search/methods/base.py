"""What a proposal method is: frozen settings that make a proposer, and what they need of the models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from promptfuse.errors import ConfigError
from promptfuse.search.arguments import describe_settings
from promptfuse.search.methods.requirements import CAUSAL_PRIMARY, Requirement

if TYPE_CHECKING:
    from promptfuse.objectives import Objective
    from promptfuse.search.methods.context import SearchContext
    from promptfuse.search.methods.proposer import Proposer


class Method(ABC):
    """How texts are proposed: a frozen dataclass of settings that makes a proposer.

    Subclass it, give it fields with defaults, and pass an object of it to ``optimize`` or ``Search``; nothing
    has to be registered for that. ``@methods.register("Name")`` or an entry point of the group
    ``promptfuse.methods`` gives it a name in YAML files too. Fields should be plain values, since they are
    saved with a search. ``__post_init__`` raises a ``ConfigError`` for values that are out of range.

    Attributes:
        requires: what the method needs of the objective's models; checked before any work.
    """

    requires: ClassVar[tuple[Requirement, ...]] = (CAUSAL_PRIMARY,)

    @abstractmethod
    def proposer(self, context: SearchContext) -> Proposer:
        """What makes each step's proposals.

        Args:
            context: the objective, the constraints, the prefix and the seed of the search.
        """

    @property
    def stages(self) -> tuple[Method, ...]:
        """The methods that take turns: the method itself, unless it is a chain."""
        return (self,)

    @property
    def stage_steps(self) -> tuple[int, ...] | None:
        """The most steps of each stage; None for those of the search's ``Stopping``."""
        return None

    def describe(self) -> dict[str, Any]:
        """The settings with the method's name, as plain values."""
        return describe_settings(self)

    def check(self, objective: Objective) -> None:
        """Raise ``ConfigError`` if the objective's models lack what one of the stages requires.

        Also if the settings cannot be described, since a search saves them.
        """
        self.describe()
        for method in self.stages:
            for requirement in method.requires:
                if (problem := requirement.problem(objective)) is not None:
                    raise ConfigError(f"{type(method).__name__} needs {requirement.name}, but {problem}")


def require(condition: bool, message: str) -> None:
    """Raise ``ConfigError`` with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def at_least(name: str, number: float, least: int = 1) -> None:
    """Raise ``ConfigError`` for a number below the least."""
    require(number >= least, f"{name}: must be at least {least}, got {number}")


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ``ConfigError`` for a value that is not among the choices."""
    listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
    require(value in choices, f"{name}: {value!r} is unknown; choose {listed}")

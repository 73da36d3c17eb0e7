"""Methods, strategies, constraints and stopping in a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import model_validator

from promptfuse.config.base import Settings, as_problem
from promptfuse.config.kinds import ByKind, Mirror, mirror
from promptfuse.search import AutoDAN, BeamSearch, Chain, Constraints, Stopping
from promptfuse.search.methods.registry import methods
from promptfuse.search.strategies import strategies


class SingleKinds(ByKind):
    """Any method but a chain."""

    registry = methods
    omit = ("Chain",)


class MethodKinds(ByKind):
    """Any method."""

    registry = methods

    @classmethod
    def settings_for(cls, name: str, item: Any) -> type[Settings]:
        """The settings of a method; those of a chain are written out."""
        return ChainSettings if item is Chain else SingleKinds.by_name()[name]


class StrategyKinds(ByKind):
    """Any strategy."""

    registry = strategies


if TYPE_CHECKING:
    SingleSettings: TypeAlias = Mirror
    StrategySettings: TypeAlias = Mirror
    ConstraintsSettings: TypeAlias = Mirror
    StoppingSettings: TypeAlias = Mirror
else:
    SingleSettings = SingleKinds
    StrategySettings = StrategyKinds
    ConstraintsSettings = mirror(Constraints)
    StoppingSettings = mirror(Stopping)


class ChainSettings(Settings):
    """Methods in sequence; each continues from the best texts of the one before.

    Attributes:
        kind: ``Chain``.
        methods: the methods in order.
        steps: the most steps of each; none for those of ``stopping``.
    """

    kind: Literal["Chain"]
    methods: list[SingleSettings]
    steps: list[int] | None = None

    def build(self) -> Chain:
        """The chain.

        Raises:
            ConfigError: if the steps do not fit the methods.
        """
        return Chain(*(method.build() for method in self.methods), steps=self.steps)

    @model_validator(mode="after")
    def _check(self) -> ChainSettings:
        with as_problem():
            self.build()
        return self


if TYPE_CHECKING:
    MethodSettings: TypeAlias = Mirror | ChainSettings
else:
    MethodSettings = MethodKinds


def default_method() -> Any:
    """The search's method where a file names none."""
    return SingleKinds.by_name()["AutoDAN"].model_validate({"kind": AutoDAN.__name__})


def default_strategy() -> Any:
    """The search's strategy where a file names none."""
    return StrategyKinds.by_name()["BeamSearch"].model_validate({"kind": BeamSearch.__name__})

"""Methods, strategies, constraints and stopping in a configuration.

Their fields and defaults are those of the search's dataclasses, so there is one place to change them.
"""

from __future__ import annotations

import dataclasses
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, Union, get_args, get_origin
from typing import get_type_hints as type_hints

from pydantic import Field, create_model, model_validator

from promptfuse.config.base import KIND_ALONE, Settings, as_problem
from promptfuse.search import AutoDAN, BeamSearch, Chain, Constraints, Greedy, Method, Stopping, UniformCost
from promptfuse.search.methods.settings import Single


class Mirror(Settings):
    """The fields of a dataclass of the search, which checks their values itself."""

    target: ClassVar[type[Any]]

    def build(self) -> Any:
        """The dataclass.

        Raises:
            ConfigError: if a value is out of range.
        """
        return self.target(**self.model_dump(exclude={"kind"}))

    @model_validator(mode="after")
    def _check(self) -> Mirror:
        with as_problem():
            self.build()
        return self


def mirror(target: type[Any], *, kind: bool = True, omit: tuple[str, ...] = ()) -> type[Mirror]:
    """The settings for a dataclass.

    Args:
        target: the dataclass.
        kind: whether a field ``kind`` tells it from others.
        omit: fields that are not the file's to set.
    """
    hints = type_hints(target)
    fields: dict[str, Any] = {"kind": (Literal[target.__name__], ...)} if kind else {}
    for field in dataclasses.fields(target):
        if field.name not in omit:
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            fields[field.name] = (_from_yaml(hints[field.name]), default)
    made = create_model(f"{target.__name__}Settings", __base__=Mirror, __doc__=target.__doc__, **fields)
    made.target = target
    return made


def _from_yaml(hint: Any) -> Any:
    """A dataclass's type as YAML gives it: lists for tuples, one choice of texts for several."""
    if get_origin(hint) is tuple:
        return list[get_args(hint)[0]]  # type: ignore[misc]
    if get_origin(hint) in (Union, UnionType):
        members = get_args(hint)
        texts = tuple(text for one in members if get_origin(one) is Literal for text in get_args(one))
        others = [_from_yaml(one) for one in members if get_origin(one) is not Literal]
        return Union[(Literal[texts], *others) if texts else tuple(others)]  # noqa: UP007
    return hint


def _by_kind(*models: type[Settings]) -> Any:
    """The type of one of these, told apart by ``kind``."""
    return Annotated[Union[models], Field(discriminator="kind"), KIND_ALONE]  # noqa: UP007


SINGLE = {target.__name__: mirror(target) for target in get_args(Single)}
"""The settings of each method by itself."""

STRATEGIES = {
    "BeamSearch": mirror(BeamSearch),
    "Greedy": mirror(Greedy, omit=("width", "diverse", "margin")),
    "UniformCost": mirror(UniformCost),
}

if TYPE_CHECKING:
    SingleSettings: TypeAlias = Mirror
    StrategySettings: TypeAlias = Mirror
    ConstraintsSettings: TypeAlias = Mirror
    StoppingSettings: TypeAlias = Mirror
else:
    SingleSettings = _by_kind(*SINGLE.values())
    StrategySettings = _by_kind(*STRATEGIES.values())
    ConstraintsSettings = mirror(Constraints, kind=False)
    StoppingSettings = mirror(Stopping, kind=False)


class ChainSettings(Settings):
    """Methods one behind the other; see ``Chain``."""

    kind: Literal["Chain"]
    methods: list[SingleSettings]
    steps: list[int] | None = None

    def build(self) -> Method:
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
    MethodSettings = _by_kind(*SINGLE.values(), ChainSettings)


def default_method() -> Any:
    """The search's method where a file names none."""
    return SINGLE[AutoDAN.__name__].model_validate({"kind": AutoDAN.__name__})


def default_strategy() -> Any:
    """The search's strategy where a file names none."""
    return STRATEGIES[BeamSearch.__name__].model_validate({"kind": BeamSearch.__name__})

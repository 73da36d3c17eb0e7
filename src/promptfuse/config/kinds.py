"""Settings that are made from classes, dataclasses and registries: there is one place to change them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin
from typing import get_type_hints as type_hints

from pydantic import Field, GetCoreSchemaHandler, TypeAdapter, ValidationInfo, create_model, model_validator
from pydantic_core import CoreSchema, core_schema

from promptfuse._utils.registry import Registry
from promptfuse.config.base import KIND_ALONE, Settings, as_problem


class Mirror(Settings):
    """The fields of a dataclass of the search, which checks their values itself."""

    target: ClassVar[type[Any]]

    def build(self) -> Any:
        """The dataclass.

        Raises:
            ConfigError: if a value is out of range.
        """
        return self.target(
            **{name: getattr(self, name) for name in type(self).model_fields if name != "kind"}
        )

    @model_validator(mode="after")
    def _check(self) -> Mirror:
        with as_problem():
            self.build()
        return self


def mirror(target: type[Any], kind: str | None = None, omit: tuple[str, ...] = ()) -> type[Mirror]:
    """The settings for a dataclass.

    Args:
        target: the dataclass.
        kind: the value of a field ``kind`` that tells it from others; None for no such field.
        omit: fields that a file cannot set.
    """
    hints = type_hints(target)
    fields: dict[str, Any] = {} if kind is None else {"kind": (Literal[kind], ...)}
    for field in dataclasses.fields(target):
        if field.name not in omit:
            fields[field.name] = (from_yaml(hints[field.name]), _default(field))
    made = create_model(f"{target.__name__}Settings", __base__=Mirror, __doc__=target.__doc__, **fields)
    made.target = target
    return made


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return Field(default_factory=field.default_factory)
    if field.default is dataclasses.MISSING:
        return ...
    return list(field.default) if isinstance(field.default, tuple) else field.default


def from_yaml(hint: Any) -> Any:
    """A type as YAML gives it: lists for tuples and sequences, one choice of texts for several."""
    if get_origin(hint) in (tuple, Sequence):
        return list[get_args(hint)[0]]  # type: ignore[misc]
    if get_origin(hint) in (Union, UnionType):
        members = get_args(hint)
        texts = tuple(text for one in members if get_origin(one) is Literal for text in get_args(one))
        others = [from_yaml(one) for one in members if get_origin(one) is not Literal]
        return Union[(Literal[texts], *others) if texts else tuple(others)]  # noqa: UP007
    return hint


class ByKind:
    """The settings of any class of a registry, told apart by ``kind``: a type for fields of settings.

    What is registered later, or comes with another package, is known at the next use.
    """

    registry: ClassVar[Registry[Any]]
    omit: ClassVar[tuple[str, ...]] = ()
    _made: ClassVar[dict[Any, type[Settings]]]
    _adapters: ClassVar[dict[tuple[type[Settings], ...], TypeAdapter[Any]]]

    def __init_subclass__(cls) -> None:
        cls._made, cls._adapters = {}, {}

    @classmethod
    def settings_for(cls, name: str, item: Any) -> type[Settings]:
        """The settings of one class; a dataclass by default.

        Args:
            name: its kind.
            item: the class.
        """
        return mirror(item, name, getattr(item, "fixed", ()))

    @classmethod
    def by_name(cls) -> dict[str, type[Settings]]:
        """The settings of every class by kind."""
        found = {}
        for name, item in cls.registry.items():
            if name in cls.omit:
                continue
            if item not in cls._made:
                cls._made[item] = cls.settings_for(name, item)
            found[name] = cls._made[item]
        return found

    @classmethod
    def members(cls) -> tuple[type[Settings], ...]:
        """The settings of every class, as the members of a union."""
        return tuple(cls.by_name().values())

    @classmethod
    def validate(cls, value: Any, info: ValidationInfo) -> Any:
        """The settings that a file's value gives."""
        members = cls.members()
        if members not in cls._adapters:
            union = Annotated[Union[members], Field(discriminator="kind"), KIND_ALONE]  # type: ignore[valid-type] # noqa: UP007
            cls._adapters[members] = TypeAdapter(union)
        return cls._adapters[members].validate_python(value, context=info.context)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """How pydantic reads a field of this type."""
        del source, handler
        return core_schema.with_info_plain_validator_function(cls.validate)

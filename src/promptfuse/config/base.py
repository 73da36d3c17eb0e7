"""What the parts of a configuration have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo

from promptfuse._utils.addresses import is_address
from promptfuse._utils.paths import expand_user
from promptfuse.errors import PromptfuseError


class Settings(BaseModel):
    """A part of a configuration: wrong keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


@contextmanager
def as_problem() -> Iterator[None]:
    """Let pydantic find the place of what the parts of the package complain about."""
    try:
        yield
    except PromptfuseError as error:
        raise ValueError(str(error)) from None


@contextmanager
def at(place: str) -> Iterator[None]:
    """Put the place in the file before what is wrong with it."""
    try:
        yield
    except PromptfuseError as error:
        if str(error).startswith(place):
            raise
        raise type(error)(f"{place}: {error}") from None


def _listed(value: Any) -> Any:
    """One value as a list of one."""
    return [value] if isinstance(value, str) else value


def _not_empty(value: list[str]) -> list[str]:
    if not value:
        raise ValueError("none given; give at least one")
    return value


def _kind_alone(value: Any) -> Any:
    """``AutoDAN`` for ``{kind: AutoDAN}``."""
    return {"kind": value} if isinstance(value, str) else value


def _from_folder(value: str, info: ValidationInfo) -> str:
    """A path of the file, which is relative to the file's folder, as an absolute one."""
    folder = (info.context or {}).get("folder")
    return value if folder is None else str(Path(folder, expand_user(value)).resolve())


def _unless_address(value: str, info: ValidationInfo) -> str:
    """The absolute path of a photo, or its address as it is."""
    return value if is_address(value) else _from_folder(value, info)


Texts = Annotated[list[str], BeforeValidator(_listed)]
"""One text or several."""

FilePath = Annotated[str, AfterValidator(_from_folder)]
"""A path, relative to the file's folder."""

PhotoPath = Annotated[str, AfterValidator(_unless_address)]
"""The path of a photo, relative to the file's folder, or an address such as ``https://...``."""

PhotoPaths = Annotated[list[PhotoPath], BeforeValidator(_listed), AfterValidator(_not_empty)]
"""One photo or several."""

KIND_ALONE = BeforeValidator(_kind_alone)
"""Lets a kind stand for itself where all its settings are the defaults."""

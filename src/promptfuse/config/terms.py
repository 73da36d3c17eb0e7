"""Terms and their models in a configuration; the settings of a term are those of its constructor."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from collections.abc import Callable as CallableType
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, Union, get_args, get_origin
from typing import get_type_hints as type_hints

import torch
from pydantic import (
    AfterValidator,
    PrivateAttr,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from promptfuse._utils.paths import expand_user
from promptfuse.config.base import FilePath, PhotoPaths, Settings, Texts, as_problem
from promptfuse.config.kinds import ByKind, from_yaml
from promptfuse.errors import ConfigError
from promptfuse.models import Model, load_model
from promptfuse.models.checkpoint import is_model_name, is_model_path
from promptfuse.models.context import read_context
from promptfuse.objectives import Term
from promptfuse.objectives.base import MAX_WEIGHT
from promptfuse.objectives.checks import read_texts
from promptfuse.objectives.registry import terms
from promptfuse.objectives.settings import FILE, PHOTOS, TEXT_OR_FILE, TEXTS, LabelOf, OfKind


class ModelSettings(Settings):
    """A model.

    Attributes:
        name: a Hugging Face id, an embedded or packaged model's name, or a folder or GGUF file, which is
            taken from the file's own folder; with ``./`` in front it can only be a folder.
        device: where it goes, if not to the device of all.
        dtype: of its parameters.
        start: what stands before every text of a causal language model; ``auto`` for its begin-of-text token.
    """

    name: str
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    start: str = "auto"

    @field_validator("name")
    @classmethod
    def _beside_the_file(cls, name: str, info: ValidationInfo) -> str:
        folder = (info.context or {}).get("folder")
        if folder is None or is_model_name(name):
            return name
        path = Path(folder, expand_user(name))
        return str(path.resolve()) if name.startswith((".", "/", "~")) or is_model_path(path) else name

    def load(self, device: str) -> Model:
        """The model, on its own device or the one given."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return load_model(self.name, device=self.device or device, dtype=dtype, start=self.start)


@dataclass(frozen=True)
class Signature:
    """What a term's constructor takes.

    Attributes:
        term: the class.
        takes_name: whether it takes the key under which results show the term.
        model_kinds: for each parameter that is a model, the classes that it may have.
        labels: for each parameter that is a label, the parameter whose model has it.
        photos: the parameters that are photos.
        functions: the parameters that are functions, which a file gives as ``module:function``.
    """

    term: type[Term]
    takes_name: bool
    model_kinds: dict[str, tuple[type[Model], ...]]
    labels: dict[str, str]
    photos: tuple[str, ...]
    functions: tuple[str, ...]


class TermSettings(Settings):
    """The parameters of a term's constructor, as a file gives them."""

    signature: ClassVar[Signature]
    _folder: str | None = PrivateAttr(None)

    if TYPE_CHECKING:
        kind: str

    def model_post_init(self, context: Any) -> None:
        """Keep the file's folder, beside which functions are looked for."""
        folder = (context or {}).get("folder") if self.signature.functions else None
        self._folder = None if folder is None else str(folder)

    @model_validator(mode="after")
    def _go_together(self) -> TermSettings:
        check = getattr(self.signature.term, "check_settings", None)
        with as_problem():
            if check is not None:
                check(**self._values())
        return self

    def _values(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in type(self).model_fields if key != "kind"}

    def model_names(self) -> dict[str, str]:
        """For each parameter that is a model its name in the configuration."""
        return {key: getattr(self, key) for key in self.signature.model_kinds}

    def photo_paths(self) -> list[str]:
        """Paths and addresses of the term's photos."""
        return [path for key in self.signature.photos for path in getattr(self, key)]

    def import_functions(self, name: str) -> dict[str, Callable[..., Any]]:
        """The functions of the user's modules, by parameter.

        Args:
            name: of the term, for the error message.

        Raises:
            ConfigError: if there is no such module or function.
        """
        return {
            key: _import_function(getattr(self, key), f"terms.{name}.{key}", self._folder)
            for key in self.signature.functions
        }

    def build(self, name: str, load: Callable[[str], Model]) -> Term:
        """The term.

        Args:
            name: its key in results.
            load: gives the model with a name of the configuration.
        """
        loaded = {key: load(model) for key, model in self.model_names().items()}
        values = self._values() | loaded | self.import_functions(name)
        if self.signature.takes_name:
            values["name"] = name
        term: Term = self.signature.term(**values)
        term.name = name
        return term


class TermKinds(ByKind):
    """Any term."""

    registry = terms

    @classmethod
    def settings_for(cls, name: str, item: type[Term]) -> type[Settings]:
        """The settings of a term: what its constructor takes, what a term is before what all have."""
        try:
            hints = type_hints(item.__init__, include_extras=True)
        except NameError as error:
            raise ConfigError(
                f"the term {name}: a hint of its constructor is not defined ({error}); import it at runtime"
            ) from None
        parameters = {key: one for key, one in inspect.signature(item).parameters.items() if key != "name"}
        common = [key for key in ("weight", "prefix", "suffix") if key in parameters]
        keys = [*(key for key in parameters if key not in common), *common]
        fields = {key: _Field(key, hints.get(key, Any), parameters[key].default) for key in keys}
        values: dict[str, Any] = {"kind": (Literal[name], ...)}
        values |= {key: (field.annotation, field.default) for key, field in fields.items()}
        made = create_model(f"{name}Settings", __base__=TermSettings, __doc__=item.__doc__, **values)
        made.signature = Signature(
            item,
            "name" in inspect.signature(item).parameters,
            {key: field.kinds for key, field in fields.items() if field.kinds},
            {key: field.label_of for key, field in fields.items() if field.label_of},
            tuple(key for key, field in fields.items() if field.is_photos),
            tuple(key for key, field in fields.items() if field.is_function),
        )
        return made


class _Field:
    """A parameter of a term's constructor as a file gives it."""

    def __init__(self, key: str, hint: Any, default: Any) -> None:
        base, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        self.default = ... if default is inspect.Parameter.empty else default
        self.kinds = next((one.kinds for one in marks if isinstance(one, OfKind)), _model_kinds(base))
        self.label_of = next((one.model for one in marks if isinstance(one, LabelOf)), "")
        self.is_photos = PHOTOS in marks
        self.is_function = get_origin(base) is CallableType or base is CallableType
        self.annotation = self._annotation(key, base, marks)

    def _annotation(self, key: str, base: Any, marks: Sequence[Any]) -> Any:
        if self.kinds:
            return str
        if self.is_photos:
            return PhotoPaths
        if self.is_function:
            return Annotated[str, AfterValidator(_two_names)]
        if FILE in marks:
            return FilePath | None
        if TEXTS in marks:
            return Annotated[Texts, AfterValidator(_not_blank)]
        if TEXT_OR_FILE in marks:
            return Annotated[str, AfterValidator(_from_its_file)]
        found = from_yaml(base)
        if key == "weight":
            return Annotated[found, AfterValidator(_can_weigh)]
        for mark in marks:  # Limits of numbers, for example.
            found = Annotated[found, mark]
        return found


def _model_kinds(hint: Any) -> tuple[type[Model], ...]:
    """The kinds of model that a hint allows; none if it is not that of a model."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(one for one in members if isinstance(one, type) and issubclass(one, Model))


def _can_weigh(weight: float) -> float:
    if not 0 < abs(weight) <= MAX_WEIGHT:
        raise ValueError(
            f"{weight:g} is not a valid weight; it must not be 0 and its size at most {MAX_WEIGHT:g}"
        )
    return weight


def _not_blank(texts: list[str], info: ValidationInfo) -> list[str]:
    with as_problem():
        return read_texts(texts, info.field_name or "text")


def _from_its_file(text: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    with as_problem():
        return read_context(text, None if folder is None else Path(folder))


def _two_names(function: str) -> str:
    module, colon, name = function.partition(":")
    if not (colon and name.isidentifier() and all(map(str.isidentifier, module.split(".")))):
        raise ValueError(f"{function!r} is not a function's name; write module:function")
    return function


def _import_function(path: str, place: str, folder: str | None) -> Callable[..., Any]:
    """The function at ``module:function``; the module is looked for beside the file first."""
    module, _, function = path.partition(":")
    before = list(sys.path)
    if folder is not None:
        sys.path.insert(0, folder)
    try:
        found: Callable[..., Any] = getattr(import_module(module), function)
    except Exception as error:  # Whatever the user's module raises when it is read.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{place}: {path} cannot be imported ({reason}); check the names") from None
    finally:
        sys.path[:] = before
    return found


if TYPE_CHECKING:
    AnyTerm: TypeAlias = TermSettings
else:
    AnyTerm = TermKinds

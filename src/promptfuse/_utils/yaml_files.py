"""Settings from YAML files: reading, writing, and saying in one line what is wrong with them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from promptfuse.errors import ConfigError

_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
"""Numbers such as 1e-3, which YAML 1.1 takes for text."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key cannot occur twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} occurs twice", problem_mark=key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return node


class _Dumper(yaml.SafeDumper):
    """Writes what ``_Loader`` reads back."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_yaml(path: Path, example: str) -> dict[str, Any]:
    """The fields of a YAML file.

    Args:
        path: the file.
        example: a field that such a file may have, for the error message.

    Raises:
        ConfigError: if it cannot be read, is not YAML, has a key twice, or is not a mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a .yaml file") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}: not valid YAML ({error.problem}, line {line}); correct it") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"{path}: not valid YAML (not UTF-8 text); give a text file") from None
    except (ValueError, RecursionError) as error:  # A date that is none, a number or nesting without end.
        reason = str(error).splitlines()[0][:80]
        raise ConfigError(f"{path}: not valid YAML ({reason}); correct it") from None
    if not isinstance(values, dict):
        found = "an empty file" if values is None else _type_name(values)
        raise ConfigError(f"{path}: expected fields such as {example!r}, found {found}")
    return {str(key): value for key, value in values.items()}


def parse_value(text: str) -> Any:
    """A YAML value written in one line, such as on a command line.

    Raises:
        ConfigError: if it is not valid YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"{text!r} is not a valid YAML value; write e.g. 3, [a, b] or 'a text'") from None


def change_value(values: dict[str, Any], key: str, value: Any) -> None:
    """Put a value where a dotted key points, in place; numbers are places in a list.

    Raises:
        ConfigError: if there is no such place.
    """
    *parents, last = key.split(".")
    here: Any = values
    for number, part in enumerate([*parents, last], 1):
        done = number > len(parents)
        if isinstance(here, list) and part.isdecimal() and int(part) < len(here):
            place: int | str = int(part)
        elif isinstance(here, dict) and part:
            place = part
        else:
            before = ".".join(key.split(".")[: number - 1])
            raise ConfigError(f"{key!r}: {before or 'the file'} has no key {part!r}; check the key")
        if done:
            here[place] = value
        else:
            if isinstance(here, dict):
                here.setdefault(place, {})
            here = here[place]


def dump_yaml(values: Mapping[str, Any]) -> str:
    """YAML that ``read_yaml`` reads back to the same values, in the order given."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def explain(error: ValidationError, model: type[BaseModel], if_missing: str = "add it") -> str:
    """The first problem, in one line, with the nearest right key for a wrong one.

    Args:
        error: what the model found.
        model: the model of the whole file.
        if_missing: the remedy for a field that is missing.
    """
    # A wrong key first: the field that is missing is often the one that it was meant for.
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    kind, given, context = first["type"], first["input"], first.get("ctx", {})
    path, owner, annotation = _walk(first["loc"], model)
    shown = ".".join(path)
    if kind in ("extra_forbidden", "missing"):
        where = f"{'.'.join(path[:-1])}: " if path[1:] else ""
        if kind == "missing":
            return f"{where}the field {path[-1]!r} is missing; {if_missing}"
        return f"{where}no field {path[-1]!r}; {nearest(path[-1], owner.model_fields if owner else ())}"
    where = f"{shown}: " if shown else ""
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        known = [tag for member in _members(annotation) for tag in _tags(member)]
        if kind == "union_tag_not_found":
            return f"{where}the field 'kind' is missing; choose from: {', '.join(known)}"
        return f"{where}no kind {context['tag']!r}; {nearest(str(context['tag']), known)}"
    if kind == "value_error":
        return f"{where}{context['error']}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(context["expected"]))
        return f"{where}{_short(given)} is unknown; {nearest(str(given), choices)}"
    if kind == "string_type":
        hint = "; put it in quotes" if isinstance(given, bool | int | float) else ""
        return f"{where}expected a text, found {_short(given)}{hint}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where}expected fields ('key: value'), found {_short(given)}"
    if kind == "list_type":
        return f"{where}expected a list, found {_short(given)}; write e.g. [a, b]"
    said = first["msg"].lower().removeprefix("input ").replace("a valid integer", "a whole number")
    return f"{where}{said}, found {_short(given)}"


def nearest(wrong: str, known: Iterable[str]) -> str:
    """What is most like a wrong name, or all there are: the end of an error message."""
    known = list(known)
    folded = {name.casefold(): name for name in reversed(known)}
    near = difflib.get_close_matches(wrong.casefold(), folded, n=1)
    return f"did you mean {folded[near[0]]!r}?" if near else "choose from: " + ", ".join(known)


def _short(value: Any) -> str:
    """A value for a message: simple ones as they stand, others by their type."""
    if isinstance(value, dict | list | tuple) or value is None:
        return _type_name(value)
    return f"{value!r:.60}"


def _type_name(value: Any) -> str:
    names = {dict: "fields", list: "a list", tuple: "a list", NoneType: "nothing", str: "a text"}
    return names.get(type(value), type(value).__name__)


def _walk(
    location: Sequence[int | str], model: type[BaseModel]
) -> tuple[list[str], type[BaseModel] | None, Any]:
    """The keys of a location as the file has them, the model that the last belongs to, and its type.

    Locations name the member of a union that was tried too, which no key of the file stands for.
    """
    path: list[str] = []
    owner: type[BaseModel] | None = None
    annotation: Any = model
    for part in location:
        members = _members(annotation)
        if len(members) > 1:
            annotation = next((member for member in members if part in _tags(member)), None)
            continue
        annotation = members[0] if members else None
        owner = None
        if part == "[key]":
            continue
        path.append(str(part))
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            owner = annotation
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field else None
        elif get_origin(annotation) in (dict, list):
            annotation = get_args(annotation)[-1]
        else:
            annotation = None
    return path, owner, annotation


def _members(annotation: Any) -> list[Any]:
    """The members of a union but None; anything else by itself."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        return [inner for one in get_args(annotation) if one is not NoneType for inner in _members(one)]
    if isinstance(annotation, type) and hasattr(annotation, "members"):
        return list(annotation.members())  # A union that grows with a registry.
    return [annotation]


def _tags(model: Any) -> tuple[Any, ...]:
    """The values that tell a member of a union by its field ``kind``."""
    field = getattr(model, "model_fields", {}).get("kind")
    annotation = field.annotation if field else None
    return get_args(annotation) if get_origin(annotation) is Literal else ()

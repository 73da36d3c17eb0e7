"""Recipes: their kinds, which are classes, and those with names, which are YAML files of settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from promptfuse._utils.registry import Registry
from promptfuse._utils.yaml_files import explain, nearest, read_yaml
from promptfuse.errors import ConfigError

if TYPE_CHECKING:
    from promptfuse.evaluation.recipes.base import Recipe

_PACKAGE = "promptfuse.evaluation.recipes"

recipes: Registry[type[Recipe]] = Registry(
    "kind of recipe",
    "promptfuse.recipes",
    {
        "search": f"{_PACKAGE}.search",
        "samples": f"{_PACKAGE}.samples",
        "guided-decoding": f"{_PACKAGE}.guided",
        "gibbs": f"{_PACKAGE}.gibbs",
        "cache-gradient": f"{_PACKAGE}.cache_gradient",
    },
)
"""The classes of recipes by their ``kind``."""

FOLDER = Path(__file__).parent
"""Where the recipes lie that the package brings along, a YAML file each."""


def recipe_files() -> dict[str, Path]:
    """The YAML files of recipes by name.

    They lie beside this file, and in packages that an entry point of the group ``promptfuse.recipes`` names.
    Of two with one name the first counts, which is ours.
    """
    folders = [
        FOLDER,
        *(Path(place) for module in recipes.modules for place in getattr(module, "__path__", ())),
    ]
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def recipe_names() -> list[str]:
    """The names of the recipes that this and other packages bring along."""
    return list(recipe_files())


def load_recipe(source: str | Path | Mapping[str, Any], **changes: Any) -> Recipe:
    """A recipe by name, from a YAML file, or from the fields that such a file would have.

    A file or mapping may name another recipe or file (relative to its own folder) as its ``base``, whose
    fields it changes.

    Args:
        source: one of ``recipe_names``, the path of a .yaml file, or fields.
        changes: fields to replace.

    Raises:
        ConfigError: if there is no such recipe or file, or a field is wrong; the message names the nearest
            right one.
    """
    if isinstance(source, Mapping):
        shown, values = "recipe", _based(dict(source), Path(), ())
    else:
        shown, values = str(source), _read(str(source), Path(), ())
    values = {**values, **changes}
    kind = values.get("kind")
    if kind is None:
        raise ConfigError(f"{shown}: the field 'kind' is missing; choose from: {', '.join(recipes)}")
    if not isinstance(kind, str) or kind not in recipes:
        raise ConfigError(f"{shown}: no kind {kind!r}; {nearest(str(kind), recipes)}")
    try:
        return recipes[kind].model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{shown}: {explain(error, recipes[kind])}") from None


def _read(name: str, folder: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """The fields of a recipe and its bases.

    Args:
        name: of a recipe, or of a file.
        folder: what the file's path is relative to.
        below: the files that are based on this one.
    """
    named = recipe_files()
    path = named[name] if name in named else folder / name
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"no recipe {name!r}; {nearest(name, named)}, or give a .yaml file")
    if path.resolve() in below:
        raise ConfigError(f"{path}: is based on itself; name another recipe as 'base'")
    values = read_yaml(path, "kind: search")
    models = values.get("models")
    if isinstance(models, str) and models.endswith((".yaml", ".yml")):
        values["models"] = str(path.parent / models)
    return _based(values, path.parent, (*below, path.resolve()))


def _based(values: dict[str, Any], folder: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """Fields put upon those of their base, if they name one."""
    base = values.pop("base", None)
    return values if base is None else {**_read(str(base), folder, below), **values}

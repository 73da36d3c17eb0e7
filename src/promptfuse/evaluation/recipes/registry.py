"""Recipes by name, from YAML files and from plain values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from promptfuse._utils.yaml_files import explain, nearest, read_yaml
from promptfuse.errors import ConfigError
from promptfuse.evaluation.recipes.base import Recipe
from promptfuse.evaluation.recipes.cache_gradient import CacheGradientRecipe
from promptfuse.evaluation.recipes.gibbs import GibbsRecipe
from promptfuse.evaluation.recipes.guided import GuidedDecodingRecipe
from promptfuse.evaluation.recipes.samples import SamplesRecipe
from promptfuse.evaluation.recipes.search import SearchRecipe

KINDS: dict[str, type[Recipe]] = {
    str(get_args(kind.model_fields["kind"].annotation)[0]): kind
    for kind in (SearchRecipe, SamplesRecipe, GuidedDecodingRecipe, GibbsRecipe, CacheGradientRecipe)
}
"""The classes of recipes by their ``kind``."""

FOLDER = Path(__file__).parent
"""Where the recipes lie that the package brings along, a YAML file each."""


def recipe_names() -> list[str]:
    """The names of the recipes that the package brings along."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


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
        raise ConfigError(f"{shown}: the field 'kind' is missing; choose from: {', '.join(KINDS)}")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"{shown}: no kind {kind!r}; {nearest(str(kind), KINDS)}")
    try:
        return KINDS[kind].model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{shown}: {explain(error, KINDS[kind])}") from None


def _read(name: str, folder: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """The fields of a recipe and its bases.

    Args:
        name: of a recipe, or of a file.
        folder: what the file's path is relative to.
        below: the files that are based on this one.
    """
    path = FOLDER / f"{name}.yaml" if name in recipe_names() else folder / name
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"no recipe {name!r}; {nearest(name, recipe_names())}, or give a .yaml file")
    if path.resolve() in below:
        raise ConfigError(f"{path}: is based on itself; let 'base' name another recipe")
    values = read_yaml(path, "kind: search")
    models = values.get("models")
    if isinstance(models, str) and models.endswith((".yaml", ".yml")):
        values["models"] = str(path.parent / models)
    return _based(values, path.parent, (*below, path.resolve()))


def _based(values: dict[str, Any], folder: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """Fields put upon those of their base, if they name one."""
    base = values.pop("base", None)
    return values if base is None else {**_read(str(base), folder, below), **values}

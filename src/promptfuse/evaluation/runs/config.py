"""The configuration of a run over a data set: which photos, which recipe, on what."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from promptfuse._utils.addresses import is_address
from promptfuse._utils.paths import expand_user
from promptfuse._utils.yaml_files import change_value, dump_yaml, explain, nearest, read_yaml
from promptfuse.config.base import KIND_ALONE, Settings, as_problem
from promptfuse.errors import ConfigError
from promptfuse.evaluation.datasets import Dataset, read_dataset, readers, registered
from promptfuse.evaluation.datasets.hugging_face import is_hub_name
from promptfuse.evaluation.recipes import Recipe, describe, load_recipe
from promptfuse.models.checkpoint import is_model_name, is_model_path
from promptfuse.models.context import read_context
from promptfuse.tasks.steering import Steer, spell_steers

Count = Annotated[int, Field(ge=1, le=10**9)]


class EngineSettings(Settings):
    """What a run is computed on; its predictions do not depend on it.

    Attributes:
        kind: ``local`` for this machine, or ``ray`` for workers on a Ray cluster.
        workers: how many processes with a set of models each; a local run with one is one process.
        cpus_per_worker: logical CPUs that Ray reserves for each.
        gpus_per_worker: GPUs that Ray reserves for each; workers with less than 1 share one.
    """

    kind: Literal["local", "ray"] = "local"
    workers: Count = 1
    cpus_per_worker: float = Field(default=1.0, gt=0)
    gpus_per_worker: float = Field(default=0.0, ge=0)


class DatasetRunConfig(Settings):
    """A run over a data set, as a YAML file describes it; ``docs/reference/yaml.md`` lists every key.

    Attributes:
        data: a file or folder that `read_dataset` reads, or the name of a registered data set.
        images: the folder or address of the photos, where the data set does not tell.
        format: of the data set; ``auto`` to look.
        split: only photos of this split.
        keep_rejected: whether captions that the data set marks as rejected count where the run is scored.
        start: photos to leave out at the front.
        limit: the most photos; None for all.
        name: what the run is called in its manifest; the recipe's name if not given.
        recipe: the name of a shipped recipe, a file, or a recipe's settings.
        sentiment: replaces the recipe's.
        lm: replaces the recipe's language model.
        lm_prefix: replaces the recipe's; a text, or ``@FILE`` with the text.
        seed: of the data set's first photo; the one at place i has ``seed`` + i, whatever ``start`` is.
        in_flight: photos that share their forward passes.
        threads: of each process; None for as many as the run began with, else all cores shared out among the
            workers, or on Ray those that a worker reserves.
        device: where the models go.
        engine: what the run is computed on.
    """

    data: str
    images: str | None = None
    format: str = "auto"
    split: str | None = None
    keep_rejected: bool = False
    start: int = Field(default=0, ge=0)
    limit: Count | None = None
    name: str | None = None
    recipe: str | dict[str, Any] = "ours"
    sentiment: Literal["positive", "negative"] | None = None
    lm: str | None = None
    lm_prefix: str | None = None
    seed: int = Field(default=0, ge=0, le=2**62)
    in_flight: Count = 8
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    device: str = "cpu"
    engine: Annotated[EngineSettings, KIND_ALONE] = Field(default_factory=EngineSettings)

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        if value not in (known := ["auto", *readers]):
            raise ValueError(f"{value!r} is unknown; {nearest(value, known)}")
        return value

    @field_validator("data", "images")
    @classmethod
    def _in_its_folder(cls, value: str | None, info: ValidationInfo) -> str | None:
        folder = (info.context or {}).get("folder")
        if value is None or folder is None or is_address(value) or is_hub_name(value):
            return value
        path = Path(folder, expand_user(value))
        if info.field_name == "data" and value in registered() and not path.exists():
            return value
        if info.field_name == "data" and path.is_file():
            # Photos lie beside a link to a file, not beside what it leads to.
            return str(path.parent.resolve() / path.name)
        return str(path.resolve())

    @field_validator("lm")
    @classmethod
    def _beside_the_file(cls, value: str | None, info: ValidationInfo) -> str | None:
        folder = (info.context or {}).get("folder")
        if value is None or folder is None or is_model_name(value):
            return value
        path = Path(folder, expand_user(value))
        return str(path.resolve()) if is_model_path(path) else value

    @field_validator("lm_prefix")
    @classmethod
    def _from_its_file(cls, value: str | None, info: ValidationInfo) -> str | None:
        folder = (info.context or {}).get("folder")
        with as_problem():
            return None if value is None else read_context(value, None if folder is None else Path(folder))

    def make_recipe(self) -> Recipe:
        """The recipe with all that replaces its settings.

        Raises:
            ConfigError: if there is no such recipe, or a setting is wrong.
        """
        recipe = load_recipe(self.recipe)
        replaced = {name: getattr(self, name) for name in ("sentiment", "lm", "lm_prefix")}
        return recipe.model_copy(
            update={name: value for name, value in replaced.items() if value is not None}
        )

    def read(self) -> Dataset:
        """The data set, with the photos that are asked for.

        Raises:
            ConfigError: if it cannot be read, two photos have one id, or there is no photo to describe.
        """
        return read_dataset(
            self.data,
            format=self.format,
            images=self.images,
            split=self.split,
            start=self.start,
            limit=self.limit,
            keep_rejected=self.keep_rejected,
        )

    def to_yaml(self) -> str:
        """All fields with their values, as YAML that is the same configuration."""
        return dump_yaml(self.model_dump(mode="json"))


def load_run_config(
    path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None
) -> DatasetRunConfig:
    """The configuration of a run from a YAML file; its recipe is spelled out.

    Args:
        path: the file; paths in it are relative to its folder.
        changes: values that replace the file's, by dotted keys such as ``recipe.image_weight``.

    Raises:
        ConfigError: if the file cannot be read or something in it is wrong.
    """
    path = Path(path)
    values = read_yaml(path, "data: photos/")
    changes = dict(changes or {})
    folder = path.parent.resolve()
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{path}: its folder has a name that is not valid Unicode; rename it") from None
    for given in (values, changes):
        if isinstance(engine := given.get("engine"), str):
            given["engine"] = {"kind": engine}
    if "recipe" in changes:
        values["recipe"] = changes.pop("recipe")
    recipe = values.get("recipe", DatasetRunConfig.model_fields["recipe"].default)
    if isinstance(recipe, str):
        values.setdefault("name", Path(recipe).stem)
    # Spelled out, so that changes find their places and the run's folder says what was done.
    values["recipe"] = _spelled_out(recipe, folder)
    for key, value in changes.items():
        change_value(values, key, value)
    _find_files(values["recipe"], folder)
    try:
        config = DatasetRunConfig.model_validate(values, context={"folder": folder})
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, DatasetRunConfig)}") from None
    return config.model_copy(update={"recipe": describe(config.make_recipe())})


def _spelled_out(recipe: Any, folder: Path) -> Any:
    """A recipe's settings, if it is a name or a file; anything else as it is."""
    if not isinstance(recipe, str):
        return recipe
    file = folder / expand_user(recipe)
    return describe(load_recipe(str(file) if file.is_file() else recipe))


def _find_files(recipe: Any, folder: Path) -> None:
    """Make the paths of a recipe's preset, of its base and of its steers' models absolute, in place."""
    if not isinstance(recipe, dict):
        return
    for key in ("models", "base"):
        value = recipe.get(key)
        if isinstance(value, str) and value.endswith((".yaml", ".yml")):
            recipe[key] = str(folder / expand_user(value))
    if recipe.get("steer") is not None:
        # What is wrong with a steer is told where settings are checked.
        with suppress(ConfigError):
            recipe["steer"] = [_find_model(steer, folder) for steer in spell_steers(recipe["steer"])]


def _find_model(steer: str, folder: Path) -> str:
    """A steer whose model is a folder beside the file with its whole path; anything else as it is."""
    model = Steer.parse(steer).model
    known = model == "sentiment" or is_model_name(model) or is_model_path(Path(model))
    path = folder / expand_user(model)
    return steer if known or not is_model_path(path) else f"{path.resolve()}{steer[len(model) :]}"

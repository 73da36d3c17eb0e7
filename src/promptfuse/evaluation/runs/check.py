"""A look at a run before it is started: its photos and models are there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from promptfuse._utils.addresses import is_address
from promptfuse.errors import ConfigError
from promptfuse.evaluation.runs.config import DatasetRunConfig
from promptfuse.models.info import ModelInfo, read_model_info
from promptfuse.tasks.steering import read_steers


@dataclass(frozen=True)
class RunCheck:
    """What a run would work on.

    Attributes:
        photos: how many.
        missing: paths of photos that are not there; addresses are not looked up.
        models: what they are, by role.
        warnings: what is odd in the captions of the data set, a line each.
    """

    photos: int
    missing: tuple[str, ...]
    models: dict[str, ModelInfo]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        models = {role: sketch.to_dict() for role, sketch in self.models.items()}
        return {
            **asdict(self),
            "missing": list(self.missing),
            "models": models,
            "warnings": list(self.warnings),
        }


def check_run(config: DatasetRunConfig) -> RunCheck:
    """Check that the data set, the recipe and its models are there, without loading a model's weights.

    Raises:
        ConfigError, ModelError: for the first thing that is wrong.
    """
    recipe = config.make_recipe()
    describer = recipe.build()
    preset = recipe.preset()
    preset.check_sentiment(recipe.sentiment)
    dataset = config.read()
    photos = dataset.photos
    local = [photo.image for photo in photos if not is_address(photo.image)]
    roles = ["lm", "image_text"] + (["sentiment"] if recipe.sentiment else [])
    models = {role: read_model_info(getattr(preset, role), config.device) for role in roles}
    for steer in read_steers(recipe.steer or ()).values():
        meant = steer.under(preset)
        models[meant.model] = sketch = read_model_info(meant.model, config.device)
        if not sketch.has_label(meant.label):
            remedy = f"choose from: {', '.join(sketch.labels)}" if sketch.labels else "give a classifier"
            raise ConfigError(f"{meant.model} has no label {meant.label!r}; {remedy}")
    describer.check()
    missing = tuple(path for path in local if not Path(path).is_file())
    if len(missing) == len(photos):
        first = missing[0]
        raise ConfigError(f"none of {len(photos)} photos exists; the first is {first}; check data and images")
    return RunCheck(len(photos), missing, models, dataset.caption_problems)

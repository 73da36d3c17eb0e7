"""What a worker does that computes groups for another process, and what the two tell each other: JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from promptfuse import errors
from promptfuse._utils.memory import keep_memory_flat
from promptfuse.errors import ModelError, PromptfuseError
from promptfuse.evaluation.datasets import Photo
from promptfuse.evaluation.predictions import Prediction
from promptfuse.evaluation.recipes import Describer, Recipe, load_recipe
from promptfuse.evaluation.runs.engines import OnGroup, OnLine
from promptfuse.evaluation.runs.groups import (
    Group,
    Work,
    describe_group,
    torch_threads,
)

Models = dict[str, dict[str, str]]
"""Name, fingerprint and identity of each model, by role."""


def models_of(recipe: Recipe) -> Models:
    """The models that workers will have; loaded here on the CPU, only to know them."""
    describer = recipe.build()
    describer.load()
    return describer.models()


class GroupWorker:
    """Describes groups in a process of its own; the models are loaded with the first one.

    Args:
        recipe: settings of the recipe.
        device: where the models go.
        threads: that torch uses.
        models: name, fingerprint and identity of each, as the run's manifest has them.
    """

    def __init__(self, recipe: dict[str, Any], device: str, threads: int, models: Models) -> None:
        keep_memory_flat()
        self.recipe = load_recipe(recipe)
        self.device, self.threads, self.models = device, threads, models
        self._describer: Describer | None = None

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        """Describe a group; what the user can mend is handed over as an answer too."""
        try:
            with torch_threads(self.threads):
                return self._describe(group_from_json(row["group"]))
        except PromptfuseError as error:
            return {"lines": "[]", "work": "{}", "error": type(error).__name__, "message": str(error)}

    def _describe(self, group: Group) -> dict[str, str]:
        if self._describer is None:
            describer = self.recipe.build(self.device)
            describer.load()
            for role, model in describer.models().items():
                if model != self.models.get(role):
                    raise ModelError(
                        f"{model['name']}: the worker's files are not those of the process that started the "
                        "run; give all machines the same"
                    )
            self._describer = describer
        lines: list[Prediction] = []
        work = describe_group(self._describer, group, lines.append)
        values = [asdict(line) for line in lines]
        return {"lines": json.dumps(values), "work": json.dumps(asdict(work)), "error": "", "message": ""}


def take(answer: dict[str, str], on_line: OnLine, on_group: OnGroup) -> None:
    """Hand a worker's answer on."""
    if answer["error"]:
        kind: type[PromptfuseError] = getattr(errors, answer["error"])
        raise kind(answer["message"])
    for values in json.loads(answer["lines"]):
        on_line(Prediction.from_dict(values))
    on_group(Work(**json.loads(answer["work"])))


def group_to_json(group: Group) -> str:
    """What a worker is asked."""
    photos = [[photo.id, photo.image] for photo in group.photos]
    return json.dumps([group.number, photos, group.seeds])


def group_from_json(text: str) -> Group:
    """Undo ``group_to_json``."""
    number, photos, seeds = json.loads(text)
    return Group(number, tuple(Photo(id, image) for id, image in photos), tuple(seeds))

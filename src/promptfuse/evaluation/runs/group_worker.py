"""What a worker does that computes groups for another process, and what both tell each other as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from promptfuse import errors
from promptfuse._utils.memory import keep_memory_flat
from promptfuse.errors import ModelError, PromptfuseError
from promptfuse.evaluation.datasets import Photo
from promptfuse.evaluation.predictions import Prediction
from promptfuse.evaluation.recipes import Describer, Recipe, load_recipe
from promptfuse.evaluation.runs.groups import Group, Work, describe_group, torch_threads

Models = dict[str, dict[str, str]]
"""Name, fingerprint and identity of each model, by role."""

Answer = tuple[list[Prediction], Work]
"""The predictions of a group's photos, and what the group cost."""

OnLine = Callable[[Prediction], None]
OnGroup = Callable[[Work], None]


def deliver_answer(answer: Answer, on_line: OnLine, on_group: OnGroup) -> None:
    """Pass a worker's answer on."""
    lines, work = answer
    for line in lines:
        on_line(line)
    on_group(work)


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

    def __call__(self, group: Group) -> Answer:
        """Describe a group.

        Raises:
            ModelError: if a model cannot be loaded, or is not the one that the run began with.
            ConfigError: if the models cannot do what the recipe asks of them.
        """
        with torch_threads(self.threads):
            if self._describer is None:
                self._describer = self._load()
            lines: list[Prediction] = []
            return lines, describe_group(self._describer, group, lines.append)

    def _load(self) -> Describer:
        describer = self.recipe.build(self.device)
        describer.load()
        for role, model in describer.models().items():
            if model != self.models.get(role):
                raise ModelError(
                    f"{model['name']}: the worker has other files than the process that started the "
                    "run; give all machines the same files"
                )
        return describer


def group_to_json(group: Group) -> str:
    """A group as text, for engines whose machines exchange nothing that could run code."""
    return json.dumps(asdict(group))


def group_from_json(text: str) -> Group:
    """The group of ``group_to_json``."""
    values = json.loads(text)
    photos = (Photo(**{**photo, "references": tuple(photo["references"])}) for photo in values["photos"])
    return Group(values["number"], tuple(photos), tuple(values["seeds"]))


def answer_to_json(answer: Answer | PromptfuseError) -> str:
    """What a worker made of a group as text: its answer, or the package's own error."""
    if isinstance(answer, PromptfuseError):
        return json.dumps({"error": type(answer).__name__, "message": str(answer)})
    lines, work = answer
    return json.dumps({"lines": [asdict(line) for line in lines], "work": asdict(work)})


def answer_from_json(text: str) -> Answer:
    """The answer of ``answer_to_json``.

    Raises:
        PromptfuseError: if the worker ended with one.
    """
    values = json.loads(text)
    if "error" in values:
        kind: type[PromptfuseError] = getattr(errors, values["error"])
        raise kind(values["message"])
    return [Prediction(**line) for line in values["lines"]], Work(**values["work"])

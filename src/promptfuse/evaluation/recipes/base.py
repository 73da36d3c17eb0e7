"""What a recipe is: a way to describe photos, with its settings, that can be compared with others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextvars import Context
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator

from promptfuse.config.base import as_problem
from promptfuse.errors import ConfigError, TextError
from promptfuse.models import CausalLM, Preset
from promptfuse.models.images import ImageLike
from promptfuse.models.presets import Weight
from promptfuse.objectives import Objective
from promptfuse.search import Constraints
from promptfuse.search.methods.context import prefix_tokens
from promptfuse.tasks import Captioner
from promptfuse.tasks.steering import spell_steers

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Recipe(BaseModel, ABC):
    """Settings of a way to describe photos: one frozen class for each ``kind``.

    Attributes:
        kind: which way.
        models: a preset's name or YAML file; its weights are the objective's.
        fluency_weight: replaces the preset's.
        image_weight: replaces the preset's; a number, ``auto`` or ``2x``.
        sentiment_weight: replaces the preset's.
        sentiment: ``positive`` or ``negative`` to colour the captions.
        steer: labels of any classifiers, each as ``MODEL:LABEL=WEIGHT``; other spellings, such as
            ``{"MODEL:LABEL": WEIGHT}``, are turned into this one.
        prefix: what every caption begins with; replaces the preset's.
        glue: whether the first new token may go on with the prefix's last word.
        lm: replaces the preset's language model, and makes its weights automatic.
        lm_prefix: what the language model alone reads before every caption; replaces the preset's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str
    models: str = "mini"
    fluency_weight: Weight | None = None
    image_weight: Weight | None = None
    sentiment_weight: Weight | None = None
    sentiment: Literal["positive", "negative"] | None = None
    steer: list[str] | None = None
    prefix: str | None = None
    glue: bool | None = None
    lm: str | None = None
    lm_prefix: str | None = None

    @field_validator("steer", mode="before")
    @classmethod
    def _can_be_read(cls, steer: Any) -> list[str] | None:
        with as_problem():
            return None if steer is None else spell_steers(steer)

    def preset(self) -> Preset:
        """The preset with what this recipe replaces.

        Raises:
            ConfigError: if there is no such preset.
        """
        preset = Captioner(self.models, lm=self.lm).preset
        names = ("fluency_weight", "image_weight", "sentiment_weight", "prefix", "lm_prefix")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return preset.model_copy(update=given)

    @abstractmethod
    def build(self, device: str | torch.device = "cpu") -> Describer:
        """What carries the recipe out."""


@dataclass(frozen=True)
class Caption:
    """A caption and what it cost.

    Attributes:
        text: the caption.
        value: its objective, scored from scratch.
        terms: its unweighted losses by term.
        weights: the weights of the terms.
        complete: whether the text came to an end by itself.
        exact_evaluations: how many texts were scored exactly.
    """

    text: str
    value: float
    terms: dict[str, float]
    weights: dict[str, float]
    complete: bool
    exact_evaluations: int


class Describer(ABC):
    """Carries a recipe out. Several threads may call one at the same time, within a ``BatchScheduler``.

    A caption depends on the photo and the seed alone, and on which photos are in flight with it only up to
    the rounding of larger matrix products.
    """

    def __init__(self, recipe: Recipe, device: str | torch.device = "cpu") -> None:
        self.recipe = recipe
        self.captioner = Captioner(recipe.preset(), device=device)

    def check(self) -> None:
        """Look at what can be told without loading a model.

        Raises:
            ConfigError: if the recipe cannot be carried out with its models.
        """
        return

    def load(self) -> None:
        """Load the models now, so that errors come before any work.

        Raises:
            ConfigError, ModelError: if a model or its settings are wrong.
        """
        self.captioner.load(self.recipe.sentiment, self.recipe.steer or ())
        language = cast(CausalLM, self.captioner.model("lm"))
        try:
            language = language.behind(self.captioner.preset.lm_prefix or "", apart=True)
            prefix_tokens(language, self.captioner.preset.prefix.strip(), Constraints())
        except TextError as error:  # Otherwise it is every photo's.
            raise ConfigError(str(error)) from None

    @abstractmethod
    def __call__(self, image: ImageLike, seed: int = 0) -> Caption:
        """Describe a photo.

        Raises:
            ImageError: if the photo cannot be read.
            TextError: if a text cannot be read by a model.
        """

    def clear_text_cache(self) -> None:
        """Empty the models' caches, so that what comes next does not depend on what was before."""
        self.captioner.clear_text_cache()

    def models(self) -> dict[str, dict[str, str]]:
        """Name, fingerprint and identity of each model in use, by role; after ``load``."""
        return {role: model.describe() for role, model in self.captioner.loaded().items()}

    def objective(self, image: ImageLike) -> Objective:
        """The objective of a photo. It does not depend on what is in flight, not even by rounding.

        Raises:
            ImageError: if the photo cannot be read.
        """
        # Outside of the meeting, the photo's features are computed in a batch of one.
        recipe = self.recipe
        return Context().run(self.captioner.objective, image, recipe.sentiment, steer=recipe.steer or ())

    def score(self, image: ImageLike, text: str, complete: bool, evaluations: int) -> Caption:
        """A text as a caption, scored exactly."""
        return self.finish(self.objective(image), text, complete, evaluations)

    def finish(self, objective: Objective, text: str, complete: bool, evaluations: int) -> Caption:
        """A text as a caption, scored exactly under an objective that there is already."""
        found = objective.exact(text)
        weights = {name: float(term.weight) for name, term in objective.terms.items()}
        return Caption(text, found.value, dict(found.terms), weights, complete, evaluations)


def describe(recipe: Recipe) -> dict[str, Any]:
    """A recipe's settings as plain values."""
    return recipe.model_dump(exclude_none=True)

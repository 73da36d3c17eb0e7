"""Our search, and what becomes of it with other transports or with none."""

from __future__ import annotations

from contextvars import Context
from dataclasses import replace
from typing import Annotated, Literal, cast

import torch
from pydantic import Field

from promptfuse.evaluation.recipes.base import Caption, Count, Describer, Recipe
from promptfuse.evaluation.recipes.registry import recipes
from promptfuse.models import CausalLM
from promptfuse.models.images import ImageLike
from promptfuse.search import AutoDAN, Chain, Method, Polish
from promptfuse.search.methods.guidance import word_token
from promptfuse.search.methods.transports import transport
from promptfuse.tasks.effort import Effort, extent


@recipes.register("search")
class SearchRecipe(Recipe):
    """Left-to-right search (``AutoDAN``) with the objective of the caption task.

    Attributes:
        kind: ``search``.
        effort: ``fast``, ``default`` or ``thorough``: how many texts are looked at.
        candidates: exact evaluations per beam and step; the effort's if not given.
        beams: texts kept at each step; the effort's if not given.
        steps: the most tokens; the preset's if not given.
        patience: steps without a better complete text before the search ends; the effort's if not given.
        transport: what carries gradients to the language model's tokens; ``none`` for its proposals alone.
        gain: the starting factor on estimated changes.
        adapt_gain: refit the factor from the true changes seen so far.
        subtokens: the longest word, in tokens of the other models, whose positions have gradients of their
            own; the preset's if not given.
        openings: the most noun phrases that a text may begin with; the preset's if not given.
        probe_temperature: of the distribution whose expected next word is the placeholder.
        probe: a word to be the placeholder instead.
        polish_steps: steps of ``Polish`` after the last token; 0 for none.
        polish_candidates: exact evaluations per beam and step of ``Polish``.
    """

    kind: Literal["search"] = "search"
    effort: Effort = "default"
    candidates: Count | None = None
    beams: Count | None = None
    steps: Count | None = None
    patience: Count | None = None
    transport: Literal["lexical", "t-product", "t-product-paper", "none"] = "lexical"
    gain: Annotated[float, Field(ge=0, le=10)] = 0.2
    adapt_gain: bool = True
    subtokens: Annotated[int, Field(ge=1, le=8)] | None = None
    openings: Annotated[int, Field(ge=0)] | None = None
    probe_temperature: Annotated[float, Field(gt=0, le=100)] = 3.0
    probe: str | None = None
    polish_steps: Annotated[int, Field(ge=0)] = 0
    polish_candidates: Count = 64

    def build(self, device: str | torch.device = "cpu") -> SearchDescriber:
        """What describes photos by this recipe; its models are not loaded yet."""
        return SearchDescriber(self, device)


class SearchDescriber(Describer):
    """Carries a ``SearchRecipe`` out."""

    recipe: SearchRecipe

    @property
    def method(self) -> Method:
        """The search's method."""
        recipe, preset = self.recipe, self.captioner.preset
        append = AutoDAN(
            recipe.candidates or extent(preset, recipe.effort).candidates,
            recipe.transport,
            recipe.gain,
            recipe.adapt_gain,
            self.subtokens,
            recipe.probe_temperature,
            recipe.probe,
            openings=preset.openings if recipe.openings is None else recipe.openings,
        )
        if not recipe.polish_steps:
            return append
        steps = (recipe.steps or preset.steps, recipe.polish_steps)
        return Chain(append, Polish(recipe.polish_candidates), steps=steps)

    @property
    def subtokens(self) -> int:
        """The longest word, in tokens of the other models, whose positions have gradients of their own."""
        return self.recipe.subtokens or self.captioner.preset.subtokens

    def load(self) -> None:
        """Load the models; adapters are fitted now too, where there are none yet."""
        super().load()
        if self.recipe.transport == "none":
            return
        primary = cast(CausalLM, self.captioner.model("lm"))
        if self.recipe.probe is not None:
            word_token(primary, self.recipe.probe)
        for role, model in self.captioner.loaded().items():
            if role != "lm":
                transport(primary, model, self.recipe.transport, self.subtokens)

    def __call__(self, image: ImageLike, seed: int = 0) -> Caption:
        """Describe a photo."""
        recipe = self.recipe
        # Outside of the meeting, so that the photo's features do not depend on other photos in flight.
        search = Context().run(
            self.captioner.search,
            image,
            sentiment=recipe.sentiment,
            steer=recipe.steer or (),
            glue=bool(recipe.glue),
            effort=recipe.effort,
            steps=recipe.steps,
            beams=recipe.beams,
            seed=seed,
            method=self.method,
        )
        if recipe.patience is not None:
            search.stopping = replace(search.stopping, patience=recipe.patience)
        for _ in search:
            pass
        best = search.best
        return self.finish(search.objective, best.text, best.complete, search.exact_evaluations)

"""The best of many samples of the language model: no search at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from promptfuse._utils.batched_calls import batched_call
from promptfuse.errors import ConfigError, TextError
from promptfuse.evaluation.recipes.base import Caption, Count, Describer, Positive, Recipe
from promptfuse.evaluation.recipes.decoding import Language, read
from promptfuse.evaluation.recipes.registry import recipes
from promptfuse.models.images import ImageLike


@recipes.register("samples")
class SamplesRecipe(Recipe):
    """The best of N samples, drawn afresh for each photo or taken from a pool.

    Attributes:
        kind: ``samples``.
        count: N.
        pool: draw so many samples once, of which each photo takes N at random: much faster over many photos,
            whose captions are then no longer independent of each other. None to draw afresh.
        by: what the best is: ``objective``, or ``image`` for the similarity to the photo alone.
        temperature: of the language model's distribution.
        top_p: samples come from the most likely tokens that have this much probability together (Holtzman
            et al., 2020, arXiv 1904.09751); 1 for all.
        steps: the most tokens; the preset's if not given.
    """

    kind: Literal["samples"] = "samples"
    count: Count = 512
    pool: Count | None = None
    by: Literal["objective", "image"] = "objective"
    temperature: Positive = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    steps: Count | None = None

    def build(self, device: str | torch.device = "cpu") -> SamplesDescriber:
        """What describes photos by this recipe; its models are not loaded yet.

        Raises:
            ConfigError: if samples that are picked by the photo alone are to have a sentiment or a steer.
        """
        for name, value in (("sentiment", self.sentiment), ("steer", self.steer)):
            if self.by == "image" and value:
                raise ConfigError(
                    f"{name} {value!r}: samples picked by the image alone have none; write by: objective"
                )
        if self.pool is not None and self.pool < self.count:
            raise ConfigError(f"pool: {self.pool} must be at least {self.count}, the samples of a photo")
        return SamplesDescriber(self, device)


class SamplesDescriber(Describer):
    """Carries a ``SamplesRecipe`` out."""

    recipe: SamplesRecipe
    _pool: list[list[int]] | None = None

    def __call__(self, image: ImageLike, seed: int = 0) -> Caption:
        """Describe a photo."""
        recipe, preset = self.recipe, self.captioner.preset
        objective = self.objective(image)
        language = Language(objective, preset.prefix, bool(recipe.glue))
        # Drawing fills whole batches by itself; in line with other photos, so that one pass runs at a time.
        rows = batched_call(("samples", id(language.lm)), (self, language, seed), _draw_each)
        found = self._readable(language, rows)
        texts = list(found)
        if recipe.by == "image":
            values = objective.terms["image"].score(texts, preset.batch)
        else:
            values = objective.totals(objective.score(texts, batch_size=preset.batch))
        best = texts[int(values.argmin())]
        return self.finish(objective, best, found[best], len(texts))

    def draw(self, language: Language, seed: int) -> list[list[int]]:
        """A photo's samples: tokens after the prefix, the end of text included where the model ended one."""
        recipe = self.recipe
        if recipe.pool is None:
            return self._draw(language, recipe.count, seed)
        if self._pool is None:
            self._pool = self._draw(language, recipe.pool, 0)
        order = torch.randperm(recipe.pool, generator=torch.Generator().manual_seed(seed))
        return [self._pool[number] for number in order[: recipe.count].tolist()]

    def _draw(self, language: Language, number: int, seed: int) -> list[list[int]]:
        recipe, preset = self.recipe, self.captioner.preset
        generator = torch.Generator().manual_seed(seed)
        steps = recipe.steps or preset.steps
        rows: list[list[int]] = []
        while len(rows) < number:
            count = min(preset.batch, number - len(rows))
            rows += sample(language, count, steps, generator, recipe.temperature, recipe.top_p)
        return rows

    def _readable(self, language: Language, rows: Sequence[Sequence[int]]) -> dict[str, bool]:
        """The distinct texts of samples, and whether they are complete: those that are not only if none is.

        Raises:
            TextError: if no sample keeps the rules for texts.
        """
        prefix = language.setting.prefix_ids
        closed = [language.closed(row) for row in rows]
        texts = language.texts([[*prefix, *row] for row, _ in closed])
        found = {
            text: complete for text, (_, complete) in zip(texts, closed, strict=True) if text is not None
        }
        if not found:
            raise TextError(f"count: none of {len(rows)} samples can be read back; give a larger number")
        return {text: complete for text, complete in found.items() if complete} or found


def _draw_each(asked: Sequence[tuple[SamplesDescriber, Language, int]]) -> list[list[list[int]]]:
    """Samples for several photos, one after another: batches of several would change them by rounding."""
    return [describer.draw(language, seed) for describer, language, seed in asked]


@torch.no_grad()
def sample(
    language: Language,
    count: int,
    steps: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_p: float = 1.0,
    whole: bool = False,
) -> list[list[int]]:
    """Draw texts token by token, each to its end or for so many tokens.

    Args:
        language: the language model and its rules; tokens that may not stand in a text are not drawn.
        count: how many.
        steps: the most tokens.
        generator: on the CPU, wherever the model is.
        temperature: of the language model's distribution.
        top_p: texts come from the most likely tokens that have this much probability together.
        whole: whether no text may end before all its tokens are drawn, nor with them.

    Returns:
        Tokens after the prefix.
    """
    lm = language.lm
    reading = read(lm, torch.tensor([language.start], device=lm.device))
    reading = reading.of(torch.zeros(count, dtype=torch.long, device=lm.device))
    usable, stops = language.usable, language.stops
    rows: list[list[int]] = [[] for _ in range(count)]
    alive = torch.arange(count)
    for step in range(steps):
        # No text ends before it has begun.
        allowed = language.first if not step else language.inner if whole else usable
        scores = reading.log_probabilities.masked_fill(~allowed, -torch.inf)
        tokens = _choose((scores / temperature).softmax(-1), top_p, generator)
        for number, token in zip(alive.tolist(), tokens.tolist(), strict=True):
            rows[number].append(token)
        marked = zip(alive.tolist(), stops[tokens].tolist(), strict=True)
        going = stops.new_tensor([not (mark and language.ends(rows[number])) for number, mark in marked])
        going = going.nonzero()[:, 0]
        if not len(going) or step == steps - 1:
            break
        alive = alive[going.cpu()]
        reading = read(lm, tokens[going, None], reading.of(going).layers)
    return rows


def _choose(probabilities: Tensor, top_p: float, generator: torch.Generator) -> Tensor:
    """Draw a token for each row, (rows,), from (rows, vocabulary)."""
    order = None
    if top_p < 1:  # The token that crosses the border belongs to the nucleus.
        probabilities, order = probabilities.sort(descending=True, stable=True)
        beyond = probabilities.cumsum(-1) - probabilities >= top_p
        probabilities = probabilities.masked_fill(beyond, 0)
    total = probabilities.cumsum(-1)
    # By the inverse of the distribution function, with numbers from the CPU, any device draws the same.
    point = torch.rand(len(total), 1, generator=generator).to(total) * total[:, -1:]
    place = torch.searchsorted(total, point, right=True)
    # Rounded up to the very end, a point is in front of no token; the last that may be drawn is meant.
    place = torch.minimum(place, (probabilities > 0).cumsum(-1).argmax(-1, keepdim=True))
    return (place if order is None else order.gather(1, place))[:, 0]

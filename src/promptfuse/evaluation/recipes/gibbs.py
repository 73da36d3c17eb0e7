"""Token-wise Gibbs sampling with candidates re-ranked, in the manner of ConZIC.

A re-implementation from Zeng et al. (2023), "ConZIC: Controllable Zero-shot Image Captioning by
Sampling-Based Polishing", arXiv 2303.02437, section 3. A sentence has a fixed length. Its positions are
visited in some order, again and again; at each the k likeliest tokens under the language prior are ranked by

    alpha prior(v) + beta softmax_v(scale x cos(photo, sentence with v)) + gamma tone(v)

and the best is put there.

Where it differs:

* ConZIC's prior is a masked language model's. There is only a causal one here, so the candidates are its k
  likeliest tokens after what stands to the left, with the token that is there already, and the prior is
  the softmax over them of the likelihood of the *whole* sentence, at a temperature: the exact conditional
  distribution of the position, restricted to the candidates. A word that only what stands to its right asks
  for is not found.
* Without masks, the first sweep goes from left to right and appends, or it changes a sentence that was drawn
  from the language model.
* The sentence ends with a full stop at a place of its own; candidates keep the rules that hold for all
  recipes. Of the sentences after each sweep the one with the best objective is returned, where ConZIC shows
  the last one or the most image-similar.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from promptfuse.errors import ConfigError, TextError
from promptfuse.evaluation.recipes.base import Caption, Count, Describer, Positive, Recipe
from promptfuse.evaluation.recipes.decoding import Language
from promptfuse.evaluation.recipes.matching import Matcher
from promptfuse.evaluation.recipes.registry import recipes
from promptfuse.evaluation.recipes.samples import sample
from promptfuse.models.images import ImageLike
from promptfuse.objectives import Fluency, Objective

Factor = Annotated[float, Field(ge=0, le=1000)]


@recipes.register("gibbs")
class GibbsRecipe(Recipe):
    """Gibbs sampling of sentences of a fixed length, in the manner of ConZIC.

    Attributes:
        kind: ``gibbs``.
        length: tokens between the prefix and the full stop.
        sweeps: how often every position is visited; the paper's number is 15.
        top_k: candidates at a position; the paper's number is 200.
        order: ``sequential``, or ``shuffle``d anew in every sweep.
        start: ``empty`` to append in the first sweep, or the ``draft`` of a sample.
        alpha: weight of the prior; the paper's is 0.02.
        beta: weight of the photo; the paper's is 2.
        gamma: weight of the labels, if there is a sentiment or a steer; the paper's is 5.
        prior_temperature: of the softmax over the sentences' log-likelihoods.
        scale: what cosines are multiplied by before the softmax; the image-text model's own if not given.
    """

    kind: Literal["gibbs"] = "gibbs"
    length: Annotated[int, Field(ge=2, le=100)] = 10
    sweeps: Count = 3
    top_k: Count = 32
    order: Literal["sequential", "shuffle"] = "shuffle"
    start: Literal["empty", "draft"] = "empty"
    alpha: Factor = 0.02
    beta: Factor = 2.0
    gamma: Factor = 5.0
    prior_temperature: Positive = 1.0
    scale: Factor | None = None

    def build(self, device: str | torch.device = "cpu") -> GibbsDescriber:
        """What describes photos by this recipe; its models are not loaded yet."""
        return GibbsDescriber(self, device)


class GibbsDescriber(Describer):
    """Carries a ``GibbsRecipe`` out."""

    recipe: GibbsRecipe

    def __call__(self, image: ImageLike, seed: int = 0) -> Caption:
        """Describe a photo."""
        recipe = self.recipe
        generator = torch.Generator().manual_seed(seed)
        objective = self.objective(image)
        sampler = GibbsSampler(objective, self.captioner.preset.prefix, recipe)
        row: list[int] = []
        if recipe.start == "draft":
            row = sampler.draft(generator)
        ends = []
        for sweep in range(recipe.sweeps):
            if sweep == 0 and recipe.start == "empty":
                order = list(range(recipe.length))
            elif recipe.order == "shuffle":
                order = torch.randperm(recipe.length, generator=generator).tolist()
            else:
                order = list(range(recipe.length))
            before = row
            for position in order:
                row = sampler.visit(row, position)
            ends.append(sampler.text(row))
            if row == before:  # Every token is the best at its place: nothing will ever change.
                break
        values = objective.totals(objective.score(ends))
        return self.finish(objective, ends[int(values.argmin())], True, sampler.matcher.scored)


class GibbsSampler:
    """Visits the positions of one photo's sentences.

    Args:
        objective: the photo's objective.
        prefix: what every sentence begins with.
        recipe: the settings.

    Raises:
        ConfigError: if the language model has no full stop that is a token by itself.
    """

    def __init__(self, objective: Objective, prefix: str, recipe: GibbsRecipe) -> None:
        self.language = Language(objective, prefix, bool(recipe.glue))
        self.matcher = Matcher(objective, recipe.scale)
        self.fluency = cast(Fluency, objective.terms["fluency"])
        self.recipe = recipe
        # Behind a word: alone it might get the blank of a word's beginning.
        (ids,) = self.language.lm.plain_ids(["dog."])
        if self.language.lm.tokenizer.decode(ids[-1:]).strip() != ".":
            raise ConfigError(f"{self.language.lm.name} has no token for a full stop; use another recipe")
        self.stop = ids[-1]
        self.prefix = list(self.language.setting.prefix_ids)

    def text(self, row: Sequence[int]) -> str:
        """The text of a row that keeps the rules, with its full stop."""
        (text,) = self.language.texts([self._whole(row)])
        assert text is not None
        return text

    def _whole(self, row: Sequence[int]) -> list[int]:
        """The row after the prefix; with its full stop once it is of full length."""
        closing = [self.stop] if len(row) == self.recipe.length else []
        return [*self.prefix, *row, *closing]

    def draft(self, generator: torch.Generator) -> list[int]:
        """The tokens of a sample of the right length.

        Raises:
            TextError: if none of a thousand keeps the rules.
        """
        for _ in range(40):
            rows = sample(self.language, 25, self.recipe.length, generator, whole=True)
            for row, text in zip(rows, self.language.texts([self._whole(one) for one in rows]), strict=True):
                if text is not None:
                    return row
        raise TextError(f"length: no sample of {self.recipe.length} tokens can be read back; give another")

    def candidates(self, row: Sequence[int], position: int) -> tuple[list[list[int]], list[str]]:
        """Rows with another token at a position, and their texts; the row as it stands is among them."""
        left = [*self.prefix, *row[:position]]
        scores = self.language.lm.next_log_probabilities([left])[0]
        allowed = self.language.inner if position else self.language.first
        scores = scores.masked_fill(~allowed, -torch.inf)
        count = min(2 * self.recipe.top_k + 16, int(allowed.sum()))
        tokens: list[int] = scores.topk(count).indices.tolist()
        now = list(row[position : position + 1])
        rows = [
            [*row[:position], token, *row[position + 1 :]]
            for token in now + [token for token in tokens if token not in now]
        ]
        texts = self.language.texts([self._whole(one) for one in rows])
        pairs = [(one, text) for one, text in zip(rows, texts, strict=True) if text is not None]
        pairs = pairs[: self.recipe.top_k]
        return [one for one, _ in pairs], [text for _, text in pairs]

    def visit(self, row: Sequence[int], position: int) -> list[int]:
        """The row with the best candidate at a position.

        Raises:
            TextError: if no token can be appended at all.
        """
        rows, texts = self.candidates(row, position)
        if not rows:
            raise TextError(f"length: no token can be at position {position + 1}; give a smaller number")
        return rows[int(self.scores(rows, texts).argmax())]

    def scores(self, rows: Sequence[Sequence[int]], texts: Sequence[str]) -> Tensor:
        """What candidates are ranked by, (candidates,)."""
        recipe = self.recipe
        # All rows have as many tokens, so one number leads from the loss back to the sum.
        predicted = len(self._whole(rows[0])) - (0 if self.language.lm.start_ids else 1)
        length_normalizer = float(self.fluency.length_normalizer(torch.tensor(float(predicted))))
        likelihood = -self.fluency.score(texts, parents=[texts[0]] * len(texts)) / length_normalizer
        prior = (likelihood / recipe.prior_temperature).softmax(0)
        total = recipe.alpha * prior + recipe.beta * self.matcher.match(texts, texts[0]).to(prior)
        if self.matcher.wanted:
            total = total + recipe.gamma * self.matcher.tone(texts).to(prior)
        return total

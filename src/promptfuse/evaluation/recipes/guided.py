"""Decoding guided by the photo, in the manner of MAGIC.

A re-implementation from Su et al. (2022), "Language Models Can See: Plugging Visual Controls in Text
Generation", arXiv 2205.02655, section 3.2. In each step the language model's k most likely tokens v are
ranked by

    (1 - alpha) p(v | x) - alpha max_j cos(h_v, h_j) + beta softmax_v(scale x cos(photo, text of x and v))

with h the last hidden states of v after x and of the tokens of x, and the best is appended.

Where it differs: only tokens are candidates whose text keeps the rules that hold for all recipes (it reads
back, no pair of words twice); a classifier's label may be a fourth part of the sum, as in ConZIC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from promptfuse.errors import TextError
from promptfuse.evaluation.recipes.base import Caption, Count, Describer, Recipe
from promptfuse.evaluation.recipes.decoding import Language, Reading, read
from promptfuse.evaluation.recipes.matching import Matcher
from promptfuse.evaluation.recipes.registry import recipes
from promptfuse.models.images import ImageLike

Share = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(ge=0, le=1000)]


@recipes.register("guided-decoding")
class GuidedDecodingRecipe(Recipe):
    """Greedy decoding with photo and hidden states in the ranking, in the manner of MAGIC.

    Attributes:
        kind: ``guided-decoding``.
        top_k: tokens that are ranked in each step; the paper's number is 45.
        alpha: weight of the penalty of degeneration; the paper's is 0.1.
        beta: weight of the photo; the paper's is 2.
        scale: what cosines are multiplied by before the softmax; the image-text model's own, as in the
            paper, if not given.
        gamma: weight of the share that a candidate has of the labels' probability, if there is a sentiment
            or a steer.
        steps: the most tokens; the preset's if not given (the paper's number is 16).
    """

    kind: Literal["guided-decoding"] = "guided-decoding"
    top_k: Count = 45
    alpha: Share = 0.1
    beta: Factor = 2.0
    scale: Factor | None = None
    gamma: Factor = 2.0
    steps: Count | None = None

    def build(self, device: str | torch.device = "cpu") -> GuidedDecodingDescriber:
        """What describes photos by this recipe; its models are not loaded yet."""
        return GuidedDecodingDescriber(self, device)


class GuidedDecodingDescriber(Describer):
    """Carries a ``GuidedDecodingRecipe`` out."""

    recipe: GuidedDecodingRecipe

    def __call__(self, image: ImageLike, seed: int = 0) -> Caption:
        """Describe a photo; nothing is drawn, so the seed does not matter."""
        del seed
        recipe, preset = self.recipe, self.captioner.preset
        objective = self.objective(image)
        language = Language(objective, preset.prefix, bool(recipe.glue))
        matcher = Matcher(objective, recipe.scale)
        reading = read(language.lm, torch.tensor([language.start], device=language.lm.device))
        # The penalty is on repeating the text, not what the language model reads before it.
        known = reading.hidden[0, -1 - len(language.setting.prefix_ids) :]
        row, text = list(language.setting.prefix_ids), preset.prefix.strip()
        complete = False
        for _ in range(recipe.steps or preset.steps):
            tokens, texts = self._candidates(language, reading, row, text)
            if not tokens:
                break
            if tokens[0] in language.lm.end_ids:
                complete = True
                break
            column = torch.tensor(tokens, device=language.lm.device)
            rows = torch.zeros(len(tokens), dtype=torch.long, device=column.device)
            try:
                following = read(language.lm, column[:, None], reading.of(rows).layers)
            except TextError:  # No room for a further token.
                break
            scores = magic_scores(
                reading.log_probabilities[0, column].exp(),
                following.hidden[:, 0],
                known,
                matcher.match(texts, text),
                recipe.alpha,
                recipe.beta,
            )
            if matcher.wanted:
                scores = scores + recipe.gamma * matcher.tone(texts)
            best = int(scores.argmax())
            row, text = [*row, tokens[best]], texts[best]
            known = torch.cat([known, following.hidden[best]])
            reading = following.of(column.new_tensor([best]))
            if complete := language.ends(row[len(language.setting.prefix_ids) :]):
                break
        return self.finish(objective, text, complete, matcher.scored)

    def _candidates(
        self, language: Language, reading: Reading, row: Sequence[int], text: str
    ) -> tuple[list[int], list[str]]:
        """The tokens to rank and the texts that they make, the likeliest first.

        The end of text is no token that a photo could match: it is the answer alone where the language model
        holds it for the likeliest, and else left out.
        """
        begun = text.strip() != language.setting.prefix
        allowed = language.usable if begun else language.first
        scores = reading.log_probabilities[0].masked_fill(~allowed, -torch.inf)
        # Some break a rule; rank enough to fill the number all the same.
        count = min(2 * self.recipe.top_k + 16, int(allowed.sum()))
        ranked = cast(list[int], scores.topk(count).indices.tolist())
        if ranked[0] in language.lm.end_ids:
            return ranked[:1], [text]
        ranked = [token for token in ranked if token not in language.lm.end_ids]
        found = language.texts([[*row, token] for token in ranked])
        pairs = [(token, one) for token, one in zip(ranked, found, strict=True) if one is not None]
        pairs = pairs[: self.recipe.top_k]
        return [token for token, _ in pairs], [one for _, one in pairs]


def magic_scores(
    probabilities: Tensor,
    candidates: Tensor,
    context: Tensor,
    match: Tensor,
    alpha: float,
    beta: float,
) -> Tensor:
    """What candidates are ranked by, (k,): Su et al. (2022), equation 5.

    Args:
        probabilities: (k,), the language model's.
        candidates: (k, d), last hidden states of the candidates.
        context: (tokens, d), those of the tokens before.
        match: (k,), the candidates' shares of the match with the photo.
        alpha: weight of the penalty of degeneration.
        beta: weight of the photo.
    """
    cosines = functional.normalize(candidates, dim=-1) @ functional.normalize(context, dim=-1).T
    penalty = cosines.max(-1).values
    return (1 - alpha) * probabilities - alpha * penalty + beta * match

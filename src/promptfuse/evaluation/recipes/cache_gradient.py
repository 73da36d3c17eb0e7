"""Gradient steps on the language model's cache, in the manner of ZeroCap.

A re-implementation from Tewel et al. (2022), "ZeroCap: Zero-Shot Image-to-Text Generation for Visual-Semantic
Arithmetic", arXiv 2111.14447, section 3. Before each token the keys and values C of all tokens but the last
take a few gradient steps down

    CE(match, p(. | last token, C)) + lambda KL(p(. | last token, C) || p(. | last token, C unchanged))

where match is the softmax of the scaled cosines of the photo and the k likeliest texts, and 0 elsewhere.
From the distribution that comes of it, fused with the unchanged one, a beam search goes on. The next token
starts from the unchanged cache again.

Where it differs: only tokens whose text keeps the rules that hold for all recipes are matched and appended;
the full stop gets no bonus; norms are of each beam's own gradient; of the last beams the one with the best
objective is returned, where ZeroCap takes the most image-similar. The first token has nothing before it but
the begin-of-text token, which is the last, and so is the language model's own unless there is a prefix
(ZeroCap's is "Image of a").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from promptfuse._utils.batched_calls import batched_call
from promptfuse.errors import ConfigError, TextError
from promptfuse.evaluation.recipes.base import Caption, Count, Describer, Positive, Recipe
from promptfuse.evaluation.recipes.caches import Layers, config_keeps_cache, keeps_cache
from promptfuse.evaluation.recipes.decoding import Language, Reading, forward, join, pick, read
from promptfuse.evaluation.recipes.matching import Matcher
from promptfuse.evaluation.recipes.registry import recipes
from promptfuse.models import CausalLM
from promptfuse.models.images import ImageLike
from promptfuse.objectives import Objective

Factor = Annotated[float, Field(ge=0, le=1000)]
Share = Annotated[float, Field(ge=0, le=1)]


@recipes.register("cache-gradient")
class CacheGradientRecipe(Recipe):
    """Beam search after a cache that gradients have moved, in the manner of ZeroCap.

    Attributes:
        kind: ``cache-gradient``.
        top_k: texts that are matched with the photo in each iteration; the paper's number is 512.
        iterations: gradient steps before each token; the paper's number is 5.
        step_size: the paper's is 0.3.
        norm_power: the power of the gradient's norm, of each layer's keys and values by themselves, that it
            is divided by; the authors' code has 0.9.
        keep: lambda, the weight of staying near the unchanged distribution; the paper's is 0.2.
        scale: what cosines are multiplied by before the softmax; the image-text model's own if not given. The
            paper's is 100, which is CLIP's own.
        fusion: the changed distribution's share in the geometric mean with the unchanged one; the authors'
            code has 0.99.
        gamma: weight of a further cross-entropy with the candidates' shares of the labels' probability, if
            there is a sentiment or a steer.
        beams: the authors' code has 5.
        steps: the most tokens; the preset's if not given.
    """

    kind: Literal["cache-gradient"] = "cache-gradient"
    top_k: Count = 64
    iterations: Count = 5
    step_size: Positive = 0.3
    norm_power: Annotated[float, Field(ge=0, le=2)] = 0.9
    keep: Factor = 0.2
    scale: Factor | None = None
    fusion: Share = 0.99
    gamma: Factor = 1.0
    beams: Count = 1
    steps: Count | None = None

    def build(self, device: str | torch.device = "cpu") -> CacheGradientDescriber:
        """What describes photos by this recipe; its models are not loaded yet."""
        return CacheGradientDescriber(self, device)


def _no_cache(name: str) -> ConfigError:
    return ConfigError(
        f"recipe cache-gradient: {name} does not have keys and values for every token, which it changes; "
        "use a "
        "language model with attention layers only, or another recipe, such as guided-decoding"
    )


@dataclass(frozen=True)
class _Beam:
    """A text under way.

    Attributes:
        row: its tokens after the begin-of-text token.
        text: the text.
        total: summed log-probability under the changed distributions.
        chosen: how many tokens were chosen, the end of text included.
        complete: whether it has ended.
        parent: its row in the last reading.
    """

    row: tuple[int, ...]
    text: str
    total: float = 0.0
    chosen: int = 0
    complete: bool = False
    parent: int = 0

    @property
    def score(self) -> float:
        """Mean log-probability."""
        return self.total / max(self.chosen, 1)


class CacheGradientDescriber(Describer):
    """Carries a ``CacheGradientRecipe`` out."""

    recipe: CacheGradientRecipe

    def check(self) -> None:
        """Raise ``ConfigError`` if the language model keeps no keys and values."""
        name = self.captioner.preset.lm
        if not config_keeps_cache(name):
            raise _no_cache(name)

    def load(self) -> None:
        """Load the models.

        Raises:
            ConfigError: if the language model keeps no keys and values.
            ModelError: if a model cannot be loaded.
        """
        super().load()
        language = cast(CausalLM, self.captioner.model("lm"))
        if not keeps_cache(language):
            raise _no_cache(language.name)

    def __call__(self, image: ImageLike, seed: int = 0) -> Caption:
        """Describe a photo; nothing is drawn, so the seed does not matter."""
        del seed
        objective = self.objective(image)
        decoder = CacheGradientDecoder(objective, self.captioner.preset.prefix, self.recipe)
        beams = decoder.decode(self.recipe.steps or self.captioner.preset.steps)
        beams = [beam for beam in beams if beam.complete] or beams
        values = objective.totals(objective.score([beam.text for beam in beams]))
        best = beams[int(values.argmin())]
        return self.finish(objective, best.text, best.complete, decoder.matcher.scored)


class CacheGradientDecoder:
    """Decodes one photo's caption.

    Args:
        objective: the photo's objective.
        prefix: what the caption begins with.
        recipe: the settings.
    """

    def __init__(self, objective: Objective, prefix: str, recipe: CacheGradientRecipe) -> None:
        self.language = Language(objective, prefix, bool(recipe.glue))
        self.matcher = Matcher(objective, recipe.scale)
        self.recipe = recipe

    def decode(self, steps: int) -> list[_Beam]:
        """The last beams, each with a text of at least one word.

        Raises:
            ConfigError: if no token can stand after the prefix.
        """
        language, device = self.language, self.language.lm.device
        reading = read(language.lm, torch.tensor([language.start], device=device), cached=True)
        last = torch.tensor([[language.start[-1]]], device=device)
        beams = [_Beam(language.setting.prefix_ids, language.setting.prefix)]
        for step in range(steps):
            going = [beam for beam in beams if not beam.complete]
            if not going:
                break
            scores = self.shifted(reading, last, going)
            grown = self._grow(going, scores, begun=step > 0)
            if not grown:
                break
            ended = [beam for beam in beams if beam.complete]
            beams = sorted(ended + grown, key=lambda beam: -beam.score)[: self.recipe.beams]
            going = [beam for beam in beams if not beam.complete]
            if going and step < steps - 1:
                rows = torch.tensor([beam.parent for beam in going], device=device)
                last = torch.tensor([[beam.row[-1]] for beam in going], device=device)
                try:
                    reading = read(language.lm, last, reading.of(rows).layers)
                except TextError:  # No room for a further token.
                    break
        if not beams[0].chosen:
            raise ConfigError("no token can be put after the prefix; change the prefix")
        return beams

    def shifted(self, reading: Reading, last: Tensor, beams: Sequence[_Beam]) -> Tensor:
        """Log-probabilities of the next token after the moved cache, fused; (beams, vocabulary).

        Args:
            reading: of the beams, with their last tokens.
            last: (beams, 1), the last tokens.
            beams: their texts.
        """
        before = reading.log_probabilities
        if reading.layers[0][0].shape[2] < 2:  # Nothing in front of the last token that could move.
            return before
        recipe, lm = self.recipe, self.language.lm
        layers: Layers = tuple((keys[:, :, :-1], values[:, :, :-1]) for keys, values in reading.layers)
        now, pace = before, Pace(recipe.keep, recipe.step_size, recipe.norm_power)
        for _ in range(recipe.iterations):
            target = self.target(now, beams)
            layers = shift(lm, last, layers, target, before, pace)
            now = read(lm, last, layers).log_probabilities
        return (recipe.fusion * now + (1 - recipe.fusion) * before).log_softmax(-1)

    def target(self, now: Tensor, beams: Sequence[_Beam]) -> Tensor:
        """What the distributions are to move to, (beams, vocabulary); with a sentiment two in one sum."""
        target = torch.zeros_like(now)
        for index, beam in enumerate(beams):
            tokens, texts = self._likeliest(now[index], beam, self.recipe.top_k)
            if not tokens:
                continue
            parts = self.matcher.match(texts, beam.text).to(target)
            if self.matcher.wanted:
                parts = parts + self.recipe.gamma * self.matcher.tone(texts).to(target)
            target[index, tokens] = parts
        return target

    def _likeliest(self, scores: Tensor, beam: _Beam, count: int) -> tuple[list[int], list[str]]:
        """The likeliest tokens that may stand after a beam, and the texts that they make."""
        begun = beam.text.strip() != self.language.setting.prefix
        allowed = self.language.usable if begun else self.language.first
        scores = scores.masked_fill(~allowed, -torch.inf)
        # Some break a rule; rank enough to fill the number all the same.
        ranked: list[int] = scores.topk(min(2 * count + 16, int(allowed.sum()))).indices.tolist()
        ranked = [token for token in ranked if token not in self.language.lm.end_ids]
        texts = self.language.texts([[*beam.row, token] for token in ranked])
        pairs = [(token, text) for token, text in zip(ranked, texts, strict=True) if text is not None]
        return [token for token, _ in pairs[:count]], [text for _, text in pairs[:count]]

    def _grow(self, beams: Sequence[_Beam], scores: Tensor, begun: bool) -> list[_Beam]:
        """Each beam with each of its likeliest tokens, or ended."""
        grown = []
        for number, beam in enumerate(beams):
            here = scores[number]
            tokens, texts = self._likeliest(here, beam, self.recipe.beams)
            for token, text, chance in zip(tokens, texts, here[tokens].tolist(), strict=True):
                row = (*beam.row, token)
                complete = self.language.ends(row[len(self.language.setting.prefix_ids) :])
                more = _Beam(row, text, beam.total + chance, beam.chosen + 1, complete, number)
                grown.append(more)
            ending = max((float(here[token]) for token in self.language.lm.end_ids), default=-torch.inf)
            if begun and ending > -torch.inf:
                total = beam.total + ending
                grown.append(replace(beam, total=total, chosen=beam.chosen + 1, complete=True))
        return grown


@dataclass(frozen=True)
class Pace:
    """How far one gradient step goes; ``CacheGradientRecipe`` says what each is.

    Attributes:
        keep: weight of staying near the unchanged distribution.
        step_size: the length of the step.
        norm_power: what it is normalised by.
    """

    keep: float
    step_size: float
    norm_power: float


@dataclass(frozen=True)
class _Shift:
    """What one photo asks of `shift`."""

    last: Tensor
    layers: Layers
    target: Tensor
    before: Tensor


def shift(lm: CausalLM, last: Tensor, layers: Layers, target: Tensor, before: Tensor, pace: Pace) -> Layers:
    """One gradient step on keys and values, with other photos' where these are as far.

    Args:
        lm: the language model.
        last: (rows, 1), the last tokens.
        layers: keys and values of the tokens before.
        target: (rows, vocabulary), what the next token's distribution is to move to.
        before: (rows, vocabulary), its log-probabilities after the unchanged cache.
        pace: how far.
    """

    def joint(asked: Sequence[_Shift]) -> list[Layers]:
        whole = _Shift(
            torch.cat([one.last for one in asked]),
            join([one.layers for one in asked]),
            torch.cat([one.target for one in asked]),
            torch.cat([one.before for one in asked]),
        )
        moved = _shifted(lm, whole, pace)
        bounds = torch.tensor([0] + [len(one.last) for one in asked]).cumsum(0).tolist()
        rows = [torch.arange(*ends, device=last.device) for ends in pairwise(bounds)]
        return [pick(moved, some) for some in rows]

    key = ("shift", id(lm), layers[0][0].shape[2], pace)
    return batched_call(key, _Shift(last, layers, target, before), joint)


def _shifted(lm: CausalLM, asked: _Shift, pace: Pace) -> Layers:
    """The shifted keys and values."""
    with torch.enable_grad():
        flat = [part.detach().requires_grad_(True) for pair in asked.layers for part in pair]
        moved = tuple(zip(flat[::2], flat[1::2], strict=True))
        now = forward(lm, asked.last, moved).log_probabilities
        loss = cache_losses(now, asked.target, asked.before, pace.keep)
        gradients = torch.autograd.grad(loss.sum(), flat)
    found = []
    for part, gradient in zip(flat, gradients, strict=True):
        norm = gradient.flatten(1).norm(dim=1).clamp_min(1e-15)[:, None, None, None]
        found.append(part.detach() - pace.step_size * gradient / norm**pace.norm_power)
    return tuple(zip(found[::2], found[1::2], strict=True))


def cache_losses(now: Tensor, target: Tensor, before: Tensor, keep: float) -> Tensor:
    """What the steps lower, (rows,): Tewel et al. (2022), equation 2; from log-probabilities."""
    match = -(target * now).sum(-1)
    staying = (now.exp() * (now - before)).sum(-1)
    return match + keep * staying

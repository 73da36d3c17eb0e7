"""Inversion: find a text whose embedding is near one that is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse._utils.values import number, some_text, whole_number
from promptfuse.errors import ConfigError, TextError
from promptfuse.models import CausalLM, Model, load_model, load_preset
from promptfuse.models.images import ImageLike
from promptfuse.objectives import Fluency
from promptfuse.objectives.checks import require_model_kind
from promptfuse.search import Result, Search
from promptfuse.tasks.caption import Models
from promptfuse.tasks.inversion_inputs import Item, Target, read_targets
from promptfuse.tasks.inversion_search import (
    PHOTO_WEIGHT,
    WEIGHT,
    Style,
    inversion_objective,
    inversion_search,
    style_rules,
)
from promptfuse.tasks.query_meter import BudgetSpentError, CurvePoint, QueryMeter, metered_term
from promptfuse.tasks.text_encoders import EncoderLike, text_encoder

BUDGET = 2880
"""Texts that the encoder may read for one input, if nothing else is said."""

LENGTH = 32
"""The most tokens of a text, if nothing else is said."""


@dataclass(frozen=True)
class Inversion:
    """A text that was found for an embedding.

    Attributes:
        id: the name of the input.
        kind: what the input was: ``text``, ``embedding`` or ``image``.
        text: the best of all that were scored by nearness of its embedding and how well it reads.
        similarity: the cosine of its embedding and the one given, scored from scratch.
        nll: its mean negative log-likelihood per token under the language model, in nats; None if the model
            predicts none of its tokens.
        queries: how many texts the encoder read; at most the budget.
        seconds: wall time.
        curve: the texts that were nearer than all before them, with the queries until then.
        source: the text that was embedded, where the input is a text.
        rank: how many of the inputs, this one included, are at least as near to the text as this one; 1 if
            the text finds its source.
        among: how many inputs there were.
        digest: of the input.
        result: the search with its steps, where it was kept; None otherwise.
    """

    id: str
    kind: str
    text: str
    similarity: float
    nll: float | None
    queries: int
    seconds: float
    curve: list[CurvePoint] = field(repr=False)
    source: str | None = None
    rank: int = 1
    among: int = 1
    digest: str = field(default="", repr=False)
    result: Result | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the search's steps."""
        values = {key: value for key, value in self.__dict__.items() if key != "result"}
        return {**values, "curve": [list(point) for point in self.curve]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Inversion:
        """Undo ``to_dict``; keys that are not known are ignored."""
        known = {key: values[key] for key in cls.__dataclass_fields__ if key in values}
        return cls(**{**known, "curve": [CurvePoint(*point) for point in known["curve"]]})


class Inverter:
    """Inverts embeddings with models that are loaded once.

    Args:
        models: a preset, whose language model and image-text model stand in for those that are not given.
        encoder: what made the embeddings: a model's name, a loaded model, or a function from a list of texts
            to as many vectors, which has no gradient.
        lm: language model that proposes words: a name or a loaded one.
        lm_prefix: text that the language model alone reads before every text.
        budget: the most texts that the encoder may read for one input.
        seconds: the most wall time for one input; results then depend on the machine. None for any.
        length: the most tokens of a text.
        style: ``prose``; ``prompt`` for phrases with commas between them; ``words`` for words alone.
        seed: random seed, for methods that sample.
        device: the device of models that are given by name.

    Raises:
        ConfigError: if a setting is not valid.
        ModelError: if a model cannot be loaded or is of another kind.
    """

    def __init__(
        self,
        *,
        models: Models = "mini",
        encoder: EncoderLike | None = None,
        lm: str | PathLike[str] | Model | None = None,
        lm_prefix: str | None = None,
        budget: int = BUDGET,
        seconds: float | None = None,
        length: int = LENGTH,
        style: str = "prose",
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.budget = whole_number(budget, "budget", 2)
        self.length = whole_number(length, "length")
        self.seed = whole_number(seed, "seed", 0)
        if seconds is not None and not number(seconds, "seconds") > 0:
            raise ConfigError(f"seconds: must be above 0, got {seconds}")
        self.seconds = seconds
        style_rules(style)
        self.style = style
        self.lm_prefix = some_text(lm_prefix or "", "lm_prefix")
        preset = load_preset(models)
        lm = preset.lm if lm is None else lm
        start = preset.lm_start if lm == preset.lm else None
        model = lm if isinstance(lm, Model) else load_model(lm, device=device, start=start or "auto")
        found = require_model_kind(model, "an inversion", CausalLM)
        assert isinstance(found, CausalLM)
        self.lm = found
        self.fluency = Fluency(self.lm, context=self.lm_prefix)
        self.encoder = text_encoder(preset.image_text if encoder is None else encoder, device)

    def settings(self) -> dict[str, Any]:
        """What decides the results, in plain values."""
        return {
            "encoder": self.encoder.identity,
            "lm": self.lm.identity,
            "lm_prefix": self.lm_prefix,
            "budget": self.budget,
            "seconds": self.seconds,
            "length": self.length,
            "style": self.style,
            "seed": self.seed,
        }

    def __call__(
        self,
        target: Target,
        among: Float[Tensor, "inputs d"] | None = None,
        *,
        keep_result: bool = False,
        on_step: Callable[[QueryMeter], None] | None = None,
    ) -> Inversion:
        """Find a text for one embedding.

        Args:
            target: the embedding.
            among: those of all inputs, which the rank is counted among; None for this one alone.
            keep_result: whether the search with its steps is kept.
            on_step: called after every step of the search with what it has asked so far.

        Raises:
            TextError: if the search finds no text at all, or the language model has no room.
            ConfigError: if a function or command gives no vector.
        """
        started = time.perf_counter()
        # One query is kept for the text that is found, which is read from scratch in the end.
        meter = QueryMeter(self.budget - 1, self.seconds)
        weight = PHOTO_WEIGHT if target.kind == "image" else WEIGHT
        term = metered_term(self.encoder, target.vector, weight, meter)
        objective = inversion_objective(self.lm, term, lm_prefix=self.lm_prefix)
        search = inversion_search(
            objective, budget=meter.budget, length=self.length, style=self.style, seed=self.seed
        )
        try:
            for _ in search:
                if on_step is not None:
                    on_step(meter)
        except BudgetSpentError:
            pass
        if not meter.curve:
            raise TextError(
                f"{target.id}: no text was found; raise the budget ({self.budget}) or change the style"
            )
        # Nearest of all is often a garbled edit: the search's own best weighs how it reads, too.
        best = search.best.text if search.best.text in meter.losses else meter.curve[-1].text
        features = self.encoder.features([best])[0]
        similarity = float(features @ target.vector)
        others = target.vector[None] if among is None else among
        return Inversion(
            id=target.id,
            kind=target.kind,
            text=best,
            similarity=similarity,
            nll=self._nll(best),
            queries=meter.queries + 1,
            seconds=round(time.perf_counter() - started, 3),
            curve=meter.curve,
            source=target.source,
            rank=1 + int((others @ features > similarity + 1e-6).sum()),
            among=len(others),
            digest=target.digest,
            result=_result(search, term.name, best, meter) if keep_result else None,
        )

    def _nll(self, text: str) -> float | None:
        """Nats per token, of what the language model predicts."""
        if not self.lm.start_ids and len(self.lm.plain_ids([text])[0]) < 2:
            return None
        return self.fluency.exact(text)


def _result(search: Search, name: str, best: str, meter: QueryMeter) -> Result | None:
    """What the search says of itself, with the text that is returned.

    Args:
        search: at its end, or stopped within a step.
        name: of the embedding's term.
        best: the text.
        meter: knows the losses of all texts.
    """
    if not search.history:
        return None
    fluency = {key: term.exact(best) for key, term in search.objective.terms.items() if key != name}
    losses = fluency | {name: meter.losses[best]}
    return replace(
        search.result(),
        text=best,
        value=search.objective.total(losses),
        terms={key: losses[key] for key in search.objective.terms},
        complete=True,
        incomplete=None,
    )


def invert(
    *,
    text: str | None = None,
    embedding: Any = None,
    image: ImageLike | None = None,
    models: Models = "mini",
    encoder: EncoderLike | None = None,
    lm: str | PathLike[str] | Model | None = None,
    lm_prefix: str | None = None,
    budget: int = BUDGET,
    seconds: float | None = None,
    length: int = LENGTH,
    style: Style = "prose",
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Inversion:
    """Find a text whose embedding is near that of a text or photo, or near an embedding that is given.

    Args:
        text: a text that the encoder embeds.
        embedding: the numbers of one embedding: a sequence, an array or a tensor.
        image: a photo, which an image-text model embeds: a path, an address, an open image or pixels.
        models: a preset, whose language model and image-text model stand in for those that are not given.
        encoder: what made the embedding: a model's name, a loaded model, or a function from a list of texts
            to as many vectors, which has no gradient.
        lm: language model that proposes words: a name or a loaded one.
        lm_prefix: text that the language model alone reads before every text.
        budget: the most texts that the encoder may read, those for gradients included.
        seconds: the most wall time; the result then depends on the machine. None for any.
        length: the most tokens of the text.
        style: ``prose``; ``prompt`` for phrases with commas between them; ``words`` for words alone.
        seed: random seed, for methods that sample.
        device: the device of models that are given by name.

    Returns:
        The best text of all that were read, by nearness and how well it reads, and how it was found.

    Raises:
        ConfigError, ImageError, ModelError, TextError: for bad input, in one line.
    """
    given = {"text": text, "embedding": embedding, "image": image}
    kinds = [kind for kind, value in given.items() if value is not None]
    if len(kinds) != 1:
        raise ConfigError("text, embedding and image: give one of them")
    (kind,) = kinds
    if kind == "embedding" and isinstance(embedding, str | PathLike):
        raise ConfigError(f"embedding: {str(embedding)!r} is a file; give numbers, or use invert_many")
    name = str(image) if isinstance(image, str | Path) else kind
    inverter = Inverter(
        models=models,
        encoder=encoder,
        lm=lm,
        lm_prefix=lm_prefix,
        budget=budget,
        seconds=seconds,
        length=length,
        style=style,
        seed=seed,
        device=device,
    )
    item = Item(name, f"the {kind}", given[kind])
    targets, broken = read_targets([item], kind, inverter.encoder)  # type: ignore[arg-type]
    if broken:
        raise broken[0][1]
    return inverter(targets[0], keep_result=True)

"""Caption a photo without a captioning model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch

from promptfuse._utils.values import factor, functions, named_weights, some_text, whole_number
from promptfuse.errors import ConfigError
from promptfuse.models import Model, Preset, SequenceClassifier, load_image, load_model, load_preset
from promptfuse.models.images import ImageLike
from promptfuse.objectives import ClassProbability, Fluency, ImageSimilarity, Objective, Term
from promptfuse.objectives.checks import require_model_kind
from promptfuse.search import AutoDAN, BeamSearch, Callback, Constraints, Method, Result, Search
from promptfuse.search.drafts import automatic_weights
from promptfuse.tasks.effort import Effort, extent
from promptfuse.tasks.steering import Steer, Steers, read_steers

Sentiment = Literal["positive", "negative"]
"""Sentiments that a caption can have."""

GivenWeights: TypeAlias = Mapping[str, float | str] | None
"""Weights by term: numbers, or ``auto`` or ``2x``, factors on those that suit the models."""

Models: TypeAlias = str | PathLike[str] | Mapping[str, Any] | Preset
"""A preset by name, by a YAML file, by its fields in a mapping, or as a ``Preset``."""

ROLES = ("lm", "image_text", "sentiment")
"""Roles of a preset's models."""

TERMS = ("fluency", "image", "sentiment")
"""The names of the caption task's terms; those of steers are ``steer:LABEL``."""


class Captioner:
    """Captions photos with the models of a preset, which are loaded once.

    Args:
        models: a preset's name, a YAML file, the fields of a preset as a mapping, or a ``Preset``.
        device: the device of the models.
        lm: language model that replaces the preset's: a Hugging Face id or a local folder. The preset's
            weights were not chosen for it; they are automatic then.
        lm_prefix: text that the language model alone reads before every caption, such as a few captions of
            other photos; replaces the preset's.

    Raises:
        ConfigError: if there is no such preset.
        ModelError: if a model cannot be loaded.
    """

    def __init__(
        self,
        models: Models = "mini",
        *,
        device: str | torch.device = "cpu",
        lm: str | None = None,
        lm_prefix: str | None = None,
    ) -> None:
        preset = load_preset(models)
        if lm is not None:
            preset = preset.with_lm(some_text(lm, "lm"))
        if lm_prefix is not None:
            preset = preset.model_copy(update={"lm_prefix": some_text(lm_prefix, "lm_prefix")})
        self.preset = preset
        self.device = device
        self._loaded: dict[str, Model] = {}

    def model(self, role: Literal["lm", "image_text", "sentiment"]) -> Model:
        """One of the preset's models, loaded at first use."""
        if role not in self._loaded:
            start = self.preset.lm_start if role == "lm" else None
            self._loaded[role] = load_model(
                getattr(self.preset, role), device=self.device, start=start or "auto"
            )
        return self._loaded[role]

    def classifier(self, steer: Steer) -> tuple[SequenceClassifier, str]:
        """The classifier of a steer, loaded at first use, and the label as the model spells it.

        Raises:
            ConfigError: if the model does not have the label; the message lists its labels.
            ModelError: if the model cannot be loaded or is not a classifier.
        """
        meant = steer.under(self.preset)
        name = "sentiment" if meant.model == self.preset.sentiment else meant.model
        if name in ROLES and name != "sentiment" and Path(name).is_dir():
            name = f"./{name}"  # A model that is called as a role is.
        if name not in self._loaded:
            self._loaded[name] = load_model(meant.model, device=self.device)
        model = cast(
            SequenceClassifier, require_model_kind(self._loaded[name], "a steer", SequenceClassifier)
        )
        return model, model.labels[model.label_index(meant.label)]

    def load(self, sentiment: str | None = None, steer: Steers = ()) -> None:
        """Load the models that captions will need, so that errors come before any work."""
        self.check_sentiment(sentiment)
        steers = read_steers(steer)
        # Raises an error if the language model has no room for the text that it reads first.
        Fluency(self.model("lm"), context=self.preset.lm_prefix or "")
        self.model("image_text")
        if sentiment is not None:
            self.model("sentiment")
        for one in steers.values():
            self.classifier(one)

    def loaded(self) -> dict[str, Model]:
        """The models that have been loaded so far, by role, or by name if they have no role."""
        return dict(self._loaded)

    def clear_text_cache(self) -> None:
        """Have every model forget the texts that it has read; results do not change."""
        for model in self._loaded.values():
            model.clear_text_cache()

    def clear_cache(self) -> None:
        """Drop everything that was computed from the models' weights; needed after changing them."""
        for model in self._loaded.values():
            model.clear_cache()

    def check_sentiment(self, sentiment: str | None) -> None:
        """Raise ``ConfigError`` if the preset does not have this sentiment."""
        self.preset.check_sentiment(sentiment)

    def objective(
        self,
        image: ImageLike,
        sentiment: str | None = None,
        weights: GivenWeights = None,
        steer: Steers = (),
    ) -> Objective:
        """The objective of one photo.

        Args:
            image: a path, an address, an open image, or an array of pixels.
            sentiment: ``positive``, ``negative`` or None.
            weights: weights that replace the preset's, by term: ``fluency``, ``image``, ``sentiment`` and
                ``steer:LABEL``. ``auto`` is the weight that suits the models, ``2x`` twice that.
            steer: labels of classifiers, as ``MODEL:LABEL=WEIGHT`` or ``{"MODEL:LABEL": WEIGHT}``.

        Raises:
            ConfigError: if the sentiment, a steer's label or the name of a weight is unknown.
            ImageError: if the photo cannot be read.
        """
        self.check_sentiment(sentiment)
        steers = read_steers(steer)
        weight, factors = self._weigh(
            TERMS if sentiment else TERMS[:2], steers, named_weights(weights, "weights")
        )
        photo = load_image(image)
        terms: list[Term] = [
            Fluency(
                self.model("lm"),
                weight["fluency"],
                length_exponent=self.preset.length_exponent,
                context=self.preset.lm_prefix or "",
            ),
            ImageSimilarity(self.model("image_text"), photo, weight["image"]),
        ]
        if sentiment:
            label = self.preset.labels[sentiment]
            terms.append(
                ClassProbability(self.model("sentiment"), label, weight["sentiment"], name="sentiment")
            )
        for name, one in steers.items():
            model, label = self.classifier(one)
            terms.append(ClassProbability(model, label, weight[name], name=name))
        objective = Objective(*terms)
        if factors:
            found = automatic_weights(objective, self.preset.prefix, list(factors))
            for name, factor in factors.items():
                objective.terms[name].weight = factor * found[name]
        return objective

    def _weigh(
        self, used: Sequence[str], steers: Mapping[str, Steer], given: Mapping[str, float | str]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """The weights of terms and steers by their names, and the factors of those that are automatic."""
        weight: dict[str, Any] = {name: getattr(self.preset, f"{name}_weight") for name in used}
        for name, one in steers.items():
            weight[name] = self.preset.sentiment_weight if one.weight is None else one.weight
        if wrong := [name for name in given if name not in weight]:
            hint = " (it needs a sentiment)" if wrong[0] == "sentiment" else ""
            raise ConfigError(f"there is no term {wrong[0]!r}{hint}; choose from: {', '.join(weight)}")
        weight |= given
        factors = {name: factor(one, name) for name, one in weight.items() if isinstance(one, str)}
        weight |= dict.fromkeys(factors, 1.0)
        for name in used:
            if not weight[name] > 0:
                raise ConfigError(f"weight of {name}: must be above 0, got {weight[name]:g}")
        return weight, factors

    def search(
        self,
        image: ImageLike,
        *,
        sentiment: str | None = None,
        steer: Steers = (),
        prefix: str | None = None,
        glue: bool = False,
        effort: Effort | None = None,
        steps: int | None = None,
        beams: int | None = None,
        candidates: int | None = None,
        weights: GivenWeights = None,
        constraints: Constraints | None = None,
        seed: int = 0,
        method: Method | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Search:
        """The search for one photo, ready to run.

        Args:
            image: a path, an address, an open image, or an array of pixels.
            sentiment: ``positive``, ``negative`` or None.
            steer: labels of classifiers, as ``MODEL:LABEL=WEIGHT`` or ``{"MODEL:LABEL": WEIGHT}``.
            prefix: what the caption begins with; the preset's by default.
            glue: let the first new token continue the prefix's last word.
            effort: ``fast``, ``default`` or ``thorough``; sets beams, candidates and patience.
            steps: the most tokens to append; the preset's by default.
            beams: texts kept after each step; the effort's by default.
            candidates: texts scored exactly, for each beam and step; the effort's by default.
            weights: weights that replace the preset's, by term.
            constraints: rules that captions obey, such as banned and required words.
            seed: random seed, for methods that sample.
            method: how texts are proposed; ``AutoDAN`` with the preset's settings by default.
            callbacks: called with the search and each step; one that returns True ends the search.

        Raises:
            ImageError, ConfigError, ModelError, TextError: for bad input, in one line.
        """
        preset, usual = self.preset, extent(self.preset, effort)
        candidates = whole_number(usual.candidates if candidates is None else candidates, "candidates")
        beams = whole_number(usual.beams if beams is None else beams, "beams")
        steps = whole_number(preset.steps if steps is None else steps, "steps")
        prefix = some_text(preset.prefix if prefix is None else prefix, "prefix")
        seed = whole_number(seed, "seed", 0)
        callbacks = functions(callbacks, "callbacks")
        return Search(
            self.objective(image, sentiment, weights, steer),
            method or AutoDAN(candidates, subtokens=preset.subtokens, openings=preset.openings),
            BeamSearch(beams),
            prefix=prefix,
            glue=glue,
            steps=steps,
            patience=usual.patience,
            constraints=constraints,
            seed=seed,
            batch_size=preset.batch,
            callbacks=callbacks,
        )

    def __call__(self, image: ImageLike, **settings: Any) -> Result:
        """Caption one photo, with the settings that ``search`` takes."""
        return self.search(image, **settings).run()


def caption(
    image: ImageLike,
    *,
    sentiment: Sentiment | None = None,
    steer: Steers = (),
    models: Models = "mini",
    lm: str | None = None,
    lm_prefix: str | None = None,
    prefix: str | None = None,
    glue: bool = False,
    effort: Effort | None = None,
    steps: int | None = None,
    beams: int | None = None,
    candidates: int | None = None,
    weights: GivenWeights = None,
    constraints: Constraints | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Caption a photo by searching for a text that frozen models agree on.

    Args:
        image: a path, an address such as ``https://...``, an open image, or an array or tensor of pixels.
        sentiment: ``positive`` or ``negative`` for a caption of that sentiment.
        steer: labels of any classifiers to steer towards, or away from with a negative weight:
            ``MODEL:LABEL=WEIGHT``, ``{"MODEL:LABEL": WEIGHT}``, a ``Steer``, or a list of those.
        models: a preset (``mini`` is embedded, ``paper`` needs the model hub), a YAML file, the fields of a
            preset as a mapping, or a ``Preset``.
        lm: language model that replaces the preset's, and makes its weights automatic. Most need an
            ``lm_prefix`` to write captions.
        lm_prefix: text that the language model alone reads before every caption. A few captions of other
            photos, one on each line, show most language models what to write.
        prefix: what the caption begins with.
        glue: let the first new token continue the prefix's last word; otherwise it begins a word.
        effort: ``fast``, ``default`` or ``thorough``: how many texts the search scores.
        steps: the most tokens to append.
        beams: texts kept after each step; replaces the effort's.
        candidates: texts scored exactly, for each beam and step; replaces the effort's.
        weights: weights by term: ``fluency``, ``image``, ``sentiment`` and ``steer:LABEL``. Numbers, or
            ``auto`` for the weight that suits the models, and ``2x`` for twice that.
        constraints: rules that captions obey, such as banned and required words.
        seed: random seed, for methods that sample.
        device: the device of the models.
        callbacks: called with the search and each step; one that returns True ends the search.

    Returns:
        The best text, its value and terms, and how it was found.

    Raises:
        ImageError, ConfigError, ModelError, TextError: for bad input, in one line.
    """
    captioner = Captioner(models, device=device, lm=lm, lm_prefix=lm_prefix)
    return captioner(
        image,
        sentiment=sentiment,
        steer=steer,
        prefix=prefix,
        glue=glue,
        effort=effort,
        steps=steps,
        beams=beams,
        candidates=candidates,
        weights=weights,
        constraints=constraints,
        seed=seed,
        callbacks=callbacks,
    )

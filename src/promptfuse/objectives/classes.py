"""Class probability: a label under a classifier, or under an image-text model without any training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.errors import ConfigError
from promptfuse.models import ImageTextModel, Model, SequenceClassifier
from promptfuse.objectives.base import Term
from promptfuse.objectives.checks import read_photos, require_model_kind
from promptfuse.objectives.endings import ContinuationTerm
from promptfuse.objectives.registry import terms
from promptfuse.objectives.settings import LabelOf, OfKind, Photos


@terms.register("ClassProbability")
class ClassProbability(Term):
    """Negative log-probability of a label under a sequence classifier, in nats.

    Args:
        model: the classifier.
        label: one of its labels.
        weight: see ``Term``.
        prefix: see ``Term``.
        suffix: see ``Term``.
        name: see ``Term``.

    Raises:
        ConfigError: if the model has no such label.
    """

    def __init__(
        self,
        model: Annotated[Model, OfKind(SequenceClassifier)],
        label: Annotated[str, LabelOf("model")],
        weight: float = 2.0,
        *,
        prefix: str = "",
        suffix: str = "",
        name: str = "class",
    ) -> None:
        super().__init__(
            require_model_kind(model, "ClassProbability", SequenceClassifier), weight, prefix, suffix, name
        )
        self.label = label
        self.index = self.classifier.label_index(label)

    def describe(self) -> dict[str, Any]:
        """What decides the losses, in plain values."""
        return {**super().describe(), "label": self.classifier.labels[self.index]}

    @property
    def classifier(self) -> SequenceClassifier:
        """The classifier."""
        return cast(SequenceClassifier, self.model)

    def loss_from_outputs(self, outputs: Float[Tensor, "rows labels"]) -> Float[Tensor, " rows"]:
        """NLL of the label, (rows,), of the log-probabilities of all labels, (rows, labels)."""
        return -outputs[:, self.index]


@terms.register("ZeroShotClass")
class ZeroShotClass(Term):
    """Negative log-probability of a label for the text itself, under an image-text model, in nats.

    The text is classified as CLIP classifies photos (Radford et al., 2021, section 3.1): each label is
    written into the template, and the labels' probabilities are

        softmax_k(scale x cos(features of the text, features of the template with label k))

    with the model's own logit scale. (SigLIP's bias is the same for all labels and cancels.) Low where the
    model holds the text nearer to this label than to the others.

    Args:
        model: the image-text model.
        label: the label that is to come first; one of ``labels``, case does not matter.
        labels: all labels, two or more.
        weight: see ``Term``.
        template: what is made of a label; ``{}`` is its place.
        prefix: see ``Term``; of the text, not of the labels.
        suffix: see ``Term``.
        name: see ``Term``.

    Raises:
        ConfigError: if the label is not among the labels, or these or the template are no such.
    """

    def __init__(
        self,
        model: Annotated[Model, OfKind(ImageTextModel)],
        label: str,
        labels: Sequence[str],
        weight: float = 2.0,
        *,
        template: str = "a photo of {}",
        prefix: str = "",
        suffix: str = "",
        name: str = "class",
    ) -> None:
        super().__init__(
            require_model_kind(model, "ZeroShotClass", ImageTextModel), weight, prefix, suffix, name
        )
        self.labels, self.index = _check_labels(label, labels)
        self.template = template
        texts = _fill(template, self.labels)
        with torch.no_grad():
            self.features = torch.cat([self.encoder.text_features(model.encode([text])) for text in texts])
        self.scale = _logit_scale(self.encoder)

    @staticmethod
    def check_settings(label: str, labels: Sequence[str], template: str, **others: object) -> None:
        """Raise ``ConfigError`` if the label is not among the labels, or these or the template are wrong."""
        del others
        _check_labels(label, labels)
        _fill(template, labels)

    def describe(self) -> dict[str, Any]:
        """What decides the losses, in plain values."""
        label = self.labels[self.index]
        return {**super().describe(), "label": label, "labels": self.labels, "template": self.template}

    @property
    def encoder(self) -> ImageTextModel:
        """The image-text model."""
        return cast(ImageTextModel, self.model)

    def loss_from_outputs(self, outputs: Float[Tensor, "rows d"]) -> Float[Tensor, " rows"]:
        """NLL of the label, (rows,), of unit features, (rows, d)."""
        logits = self.scale * outputs @ self.features.T
        return -logits.log_softmax(-1)[:, self.index]


@terms.register("ZeroShotPrompt")
class ZeroShotPrompt(ContinuationTerm):
    """Negative log-probability of a photo's label, with the text as prompt before the labels, in nats.

    The text stands in the place of "a photo of" in CLIP's zero-shot classification of a photo (Radford et
    al., 2021, section 3.1): each label is put after the text, and the labels' probabilities are

        softmax_k(scale x cos(features of the photo, features of the text with label k after it))

    with the model's own logit scale. Of several photos the mean is taken.

    Args:
        model: the image-text model.
        image: a photo with this label, or several.
        label: the photo's label; one of ``labels``, case does not matter.
        labels: all labels, two or more; the model reads every text once for each.
        weight: see ``Term``.
        template: what is put after the text (and its suffix); ``{}`` is the label's place.
        prefix: see ``Term``.
        suffix: see ``Term``.
        name: see ``Term``.

    Raises:
        ConfigError: if the label is not among the labels, or these or the template are no such.
        ImageError: if a photo cannot be read.
    """

    def __init__(
        self,
        model: Annotated[Model, OfKind(ImageTextModel)],
        image: Photos,
        label: str,
        labels: Sequence[str],
        weight: float = 2.0,
        *,
        template: str = " {}",
        prefix: str = "",
        suffix: str = "",
        name: str = "class",
    ) -> None:
        self.labels, self.index = _check_labels(label, labels)
        checked = require_model_kind(model, "ZeroShotPrompt", ImageTextModel)
        super().__init__(checked, _fill(template, self.labels), weight, prefix, suffix, name)
        self.template = template
        photos, self.photo_hashes = read_photos(image)
        self.features = self.encoder.image_features(photos)
        self.scale = _logit_scale(self.encoder)

    check_settings = ZeroShotClass.check_settings

    def describe(self) -> dict[str, Any]:
        """What decides the losses, in plain values."""
        return {**super().describe(), "label": self.labels[self.index], "photos": self.photo_hashes}

    @property
    def encoder(self) -> ImageTextModel:
        """The image-text model."""
        return cast(ImageTextModel, self.model)

    def combine(self, outputs: Float[Tensor, "texts labels d"]) -> Float[Tensor, " texts"]:
        """Mean NLL of the label over the photos, (texts,), from (texts, labels, d)."""
        logits = self.scale * outputs @ self.features.T
        return -logits.log_softmax(1)[:, self.index].mean(-1)


def _check_labels(label: str, labels: Sequence[str]) -> tuple[list[str], int]:
    """The labels, and which of them is the one."""
    known = [labels] if isinstance(labels, str) else list(labels)
    folded = [one.casefold() for one in known]
    if len(set(folded)) < 2 or len(set(folded)) < len(known) or not all(map(str.strip, known)):
        raise ConfigError(f"labels {known}: give at least two different ones, none empty")
    if label.casefold() not in folded:
        raise ConfigError(f"no label {label!r}; choose from: {', '.join(known)}")
    return known, folded.index(label.casefold())


def _fill(template: str, labels: Sequence[str]) -> list[str]:
    """The template with each label in its place."""
    if "{}" not in template:
        raise ConfigError(f"template {template!r} has no slot for the label; write {{}} where it belongs")
    return [template.replace("{}", label) for label in labels]


def _logit_scale(model: ImageTextModel) -> float:
    """What the model multiplies cosines by."""
    return float(model.module.logit_scale.detach().exp())

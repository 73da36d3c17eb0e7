"""Metrics by models, named here so that torch is imported only where a model judges."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from promptfuse.evaluation.metrics.base import Captions, Column, JudgingModels, Metric, Unavailable
from promptfuse.evaluation.metrics.registry import JUDGED, metrics


class JudgedMetric(Metric):
    """Stands for a metric until its model is there, and says what is missing if it is not.

    Attributes:
        lacking: what is missing, and what to do about it.
    """

    lacking: ClassVar[str]

    @classmethod
    def create(cls, models: JudgingModels) -> Metric:
        """The metric, or one whose columns say what is missing."""
        return cls.with_models(models) or cls()

    @classmethod
    @abstractmethod
    def with_models(cls, models: JudgingModels) -> Metric | None:
        """The metric; None if its model is not given."""

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        """All columns as not available."""
        del captions
        return self.unavailable(self.lacking)


@metrics.register("clipscore")
class ClipScores(JudgedMetric):
    """CLIPScore and RefCLIPScore."""

    titles: ClassVar[Mapping[str, str]] = {"clipscore": "CLIPScore", "refclipscore": "RefCLIPScore"}
    lacking = "no image-text model is given; give one (--clip) with the photos (--images)"

    @classmethod
    def with_models(cls, models: JudgingModels) -> Metric | None:
        """By the image-text model."""
        if models.clip is None:
            return None
        from promptfuse.evaluation.metrics.clipscore import ClipScore

        return ClipScore(models.clip)


@metrics.register("perplexity")
class Perplexities(JudgedMetric):
    """Perplexity per word and per token."""

    titles: ClassVar[Mapping[str, str]] = {
        "perplexity_word": "perplexity / word",
        "perplexity_token": "perplexity / token",
    }
    lacking = "no language model is given; give one (--lm)"

    @classmethod
    def with_models(cls, models: JudgingModels) -> Metric | None:
        """By the language model."""
        if models.lm is None:
            return None
        from promptfuse.evaluation.metrics.language import Perplexity

        return Perplexity(models.lm)


@metrics.register("sentiment")
class SentimentAccuracy(JudgedMetric):
    """The share of captions with the label that was asked for."""

    titles: ClassVar[Mapping[str, str]] = {"sentiment_accuracy": "sentiment accuracy"}
    lacking = "no classifier is given; give one (--classifier) with the label (--label)"

    @classmethod
    def with_models(cls, models: JudgingModels) -> Metric | None:
        """By the classifier."""
        if models.classifier is None:
            return None
        from promptfuse.evaluation.metrics.language import LabelAccuracy

        return LabelAccuracy(models.classifier, models.label)


@metrics.register(JUDGED)
class LabelShares(JudgedMetric):
    """The share of captions with each label of a judge that was trained on labelled texts."""

    titles: ClassVar[Mapping[str, str]] = {JUDGED: "judged labels"}
    lacking = "no labelled texts are given; give some (--judge-texts) with an encoder (--judge-model)"

    @classmethod
    def with_models(cls, models: JudgingModels) -> Metric | None:
        """By the trained judge."""
        if models.text_judge is None:
            return None
        from promptfuse.evaluation.metrics.text_judge import JudgedLabels

        return JudgedLabels(models.text_judge)

"""Metrics by models, named here so that torch is imported only where a model judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import ClassVar

from promptfuse.evaluation.metrics.base import Captions, Column, JudgingModels, Metric, Unavailable
from promptfuse.evaluation.metrics.registry import JUDGED, metrics


class JudgedMetric(Metric):
    """Stands for a metric until its model is there, and says what is missing if it is not.

    Attributes:
        needs: which of the models, and of their settings, the metric takes.
        made_by: the module of this folder, and the metric's class in it.
        lacking: what is missing without the model, and what to do about it.
    """

    needs: ClassVar[tuple[str, ...]]
    made_by: ClassVar[tuple[str, str]]
    lacking: ClassVar[str]

    @classmethod
    def create(cls, models: JudgingModels) -> Metric:
        """The metric, or one whose columns say what is missing."""
        given = [getattr(models, name) for name in cls.needs]
        if given[0] is None:
            return cls()
        module, name = cls.made_by
        made: Callable[..., Metric] = getattr(import_module(f"promptfuse.evaluation.metrics.{module}"), name)
        return made(*given)

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        """All columns as not available."""
        del captions
        return self.unavailable(self.lacking)


@metrics.register("clipscore")
class ClipScores(JudgedMetric):
    """CLIPScore and RefCLIPScore."""

    titles: ClassVar[Mapping[str, str]] = {"clipscore": "CLIPScore", "refclipscore": "RefCLIPScore"}
    needs = ("clip",)
    made_by = ("clipscore", "ClipScore")
    lacking = "no image-text model given; give one (--clip) with the photos (--images)"


@metrics.register("perplexity")
class Perplexities(JudgedMetric):
    """Perplexity per word and per token."""

    titles: ClassVar[Mapping[str, str]] = {
        "perplexity_word": "perplexity / word",
        "perplexity_token": "perplexity / token",
    }
    needs = ("lm",)
    made_by = ("language", "Perplexity")
    lacking = "no language model given; give one (--lm)"


@metrics.register("sentiment")
class SentimentAccuracy(JudgedMetric):
    """The share of captions with the label that was asked for."""

    titles: ClassVar[Mapping[str, str]] = {"sentiment_accuracy": "sentiment accuracy"}
    needs = ("classifier", "label")
    made_by = ("language", "LabelAccuracy")
    lacking = "no classifier given; give one (--classifier) with the label (--label)"


@metrics.register(JUDGED)
class LabelShares(JudgedMetric):
    """The share of captions with each label of a judge that was trained on labelled texts."""

    titles: ClassVar[Mapping[str, str]] = {JUDGED: "judged labels"}
    needs = ("text_judge",)
    made_by = ("text_judge", "JudgedLabels")
    lacking = "no labelled texts given; give some (--judge-texts) with an encoder (--judge-model)"

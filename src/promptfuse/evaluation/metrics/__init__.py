"""Metrics of captions: how near to what people write, how true to the photo, how fluent, how varied."""

from promptfuse.evaluation.metrics.base import Captions, Column, Metric, Unavailable, mean
from promptfuse.evaluation.metrics.registry import METRICS, metrics
from promptfuse.evaluation.metrics.score import score
from promptfuse.evaluation.metrics.scores import Score, Scores

__all__ = [
    "METRICS",
    "Captions",
    "Column",
    "Metric",
    "Score",
    "Scores",
    "Unavailable",
    "mean",
    "metrics",
    "score",
]

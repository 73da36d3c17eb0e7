"""Metrics of captions: how near to what people write, how true to the photo, how fluent, how varied."""

from promptfuse.evaluation.metrics.base import Captions, Column, Metric, Unavailable
from promptfuse.evaluation.metrics.score import Score, Scores, score

__all__ = ["Captions", "Column", "Metric", "Score", "Scores", "Unavailable", "score"]

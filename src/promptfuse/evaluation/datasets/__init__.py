"""Data sets of photos and captions."""

from promptfuse.evaluation.datasets.records import Dataset, Photo

__all__ = ["Dataset", "Photo"]

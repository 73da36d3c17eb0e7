"""Data sets of photos and captions."""

from promptfuse.evaluation.datasets.names import register, registered
from promptfuse.evaluation.datasets.records import Dataset, Photo
from promptfuse.evaluation.datasets.registry import read_dataset
from promptfuse.models.images import load_image as open_photo

__all__ = ["Dataset", "Photo", "open_photo", "read_dataset", "register", "registered"]

"""Data sets of photos and captions."""

from promptfuse.evaluation.datasets.names import register, registered
from promptfuse.evaluation.datasets.readers import Reader, Source, readers
from promptfuse.evaluation.datasets.records import Contents, Dataset, Photo, PhotoStore, Row
from promptfuse.evaluation.datasets.registry import read_dataset
from promptfuse.models.images import load_image as open_photo

__all__ = [
    "Contents",
    "Dataset",
    "Photo",
    "PhotoStore",
    "Reader",
    "Row",
    "Source",
    "open_photo",
    "read_dataset",
    "readers",
    "register",
    "registered",
]

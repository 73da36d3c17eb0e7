"""Data sets of photos and captions."""

from promptfuse.evaluation.datasets.images import open_photo
from promptfuse.evaluation.datasets.names import register, registered
from promptfuse.evaluation.datasets.readers import Reader, Source, readers
from promptfuse.evaluation.datasets.records import Contents, Dataset, Photo, Row
from promptfuse.evaluation.datasets.registry import read_dataset

__all__ = [
    "Contents",
    "Dataset",
    "Photo",
    "Reader",
    "Row",
    "Source",
    "open_photo",
    "read_dataset",
    "readers",
    "register",
    "registered",
]

"""What a text is judged by: terms and their weighted sum."""

from promptfuse.objectives.base import Term
from promptfuse.objectives.objective import Evaluation, Objective
from promptfuse.objectives.terms import ClassProbability, Fluency, ImageSimilarity

__all__ = ["ClassProbability", "Evaluation", "Fluency", "ImageSimilarity", "Objective", "Term"]

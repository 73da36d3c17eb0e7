"""What a text is judged by: terms and their weighted sum."""

from promptfuse.objectives.base import Term
from promptfuse.objectives.continuation import Continuation
from promptfuse.objectives.objective import Evaluation, Objective
from promptfuse.objectives.terms import (
    BlackBox,
    ClassProbability,
    Fluency,
    ImageSimilarity,
    TargetContinuation,
    TextSimilarity,
    ZeroShotClass,
    ZeroShotPrompt,
)

__all__ = [
    "BlackBox",
    "ClassProbability",
    "Continuation",
    "Evaluation",
    "Fluency",
    "ImageSimilarity",
    "Objective",
    "TargetContinuation",
    "Term",
    "TextSimilarity",
    "ZeroShotClass",
    "ZeroShotPrompt",
]

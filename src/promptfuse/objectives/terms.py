"""The terms: fluency, similarity, class probability, target continuation, black box."""

from promptfuse.objectives.blackbox import BlackBox
from promptfuse.objectives.classes import ClassProbability, ZeroShotClass, ZeroShotPrompt
from promptfuse.objectives.fluency import Fluency
from promptfuse.objectives.similarity import ImageSimilarity, TextSimilarity
from promptfuse.objectives.target import TargetContinuation

__all__ = [
    "BlackBox",
    "ClassProbability",
    "Fluency",
    "ImageSimilarity",
    "TargetContinuation",
    "TextSimilarity",
    "ZeroShotClass",
    "ZeroShotPrompt",
]

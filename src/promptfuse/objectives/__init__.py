"""What a text is judged by: terms and their weighted sum."""

from typing import TYPE_CHECKING

from promptfuse._utils.lazy import make_lazy_getattr

if TYPE_CHECKING:
    from promptfuse.objectives.base import Term
    from promptfuse.objectives.blackbox import BlackBox
    from promptfuse.objectives.classes import ClassProbability, ZeroShotClass, ZeroShotPrompt
    from promptfuse.objectives.continuation import Continuation
    from promptfuse.objectives.diffusion import DiffusionLoss
    from promptfuse.objectives.embedding import EmbeddingSimilarity
    from promptfuse.objectives.fluency import Fluency
    from promptfuse.objectives.objective import Evaluation, Objective
    from promptfuse.objectives.registry import terms
    from promptfuse.objectives.similarity import ImageSimilarity, TextSimilarity
    from promptfuse.objectives.target import TargetContinuation
    from promptfuse.objectives.target_pairs import target_terms

# Imported at first use: the command line's help lists the terms without importing torch.
_HOME = {
    "Term": "base",
    "BlackBox": "blackbox",
    "ClassProbability": "classes",
    "ZeroShotClass": "classes",
    "ZeroShotPrompt": "classes",
    "Continuation": "continuation",
    "DiffusionLoss": "diffusion",
    "EmbeddingSimilarity": "embedding",
    "Fluency": "fluency",
    "Evaluation": "objective",
    "Objective": "objective",
    "terms": "registry",
    "ImageSimilarity": "similarity",
    "TextSimilarity": "similarity",
    "TargetContinuation": "target",
    "target_terms": "target_pairs",
}

__all__ = [
    "BlackBox",
    "ClassProbability",
    "Continuation",
    "DiffusionLoss",
    "EmbeddingSimilarity",
    "Evaluation",
    "Fluency",
    "ImageSimilarity",
    "Objective",
    "TargetContinuation",
    "Term",
    "TextSimilarity",
    "ZeroShotClass",
    "ZeroShotPrompt",
    "target_terms",
    "terms",
]

__getattr__ = make_lazy_getattr(__name__, _HOME)

"""The terms by name: those of the package, of programs and of other packages.

@terms.register("WordCount")
class WordCount(Term): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptfuse._utils.registry import Registry

if TYPE_CHECKING:
    from promptfuse.objectives.base import Term

_FOLDER = "promptfuse.objectives"

terms: Registry[type[Term]] = Registry(
    "term",
    "promptfuse.terms",
    {
        "Fluency": f"{_FOLDER}.fluency",
        "ImageSimilarity": f"{_FOLDER}.similarity",
        "TextSimilarity": f"{_FOLDER}.similarity",
        "ClassProbability": f"{_FOLDER}.classes",
        "EmbeddingSimilarity": f"{_FOLDER}.embedding",
        "TargetContinuation": f"{_FOLDER}.target",
        "ZeroShotClass": f"{_FOLDER}.classes",
        "ZeroShotPrompt": f"{_FOLDER}.classes",
        "DiffusionLoss": f"{_FOLDER}.diffusion",
        "BlackBox": f"{_FOLDER}.blackbox",
    },
)
"""The terms; a name is what YAML files call the ``kind`` of a term."""

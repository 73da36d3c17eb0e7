"""Find one text that several frozen models agree on, even though each has its own tokenizer."""

from typing import TYPE_CHECKING

from promptfuse._utils.lazy import make_lazy_getattr
from promptfuse.version import __version__

if TYPE_CHECKING:
    from promptfuse.adapters import Adapter, LexicalTransport, TProductTransport
    from promptfuse.errors import (
        AdapterError,
        ConfigError,
        ImageError,
        ModelError,
        PromptfuseError,
        TextError,
    )
    from promptfuse.models import PRESETS, Preset, load_image, load_model
    from promptfuse.objectives import (
        BlackBox,
        ClassProbability,
        Continuation,
        Evaluation,
        Fluency,
        ImageSimilarity,
        Objective,
        TargetContinuation,
        Term,
        TextSimilarity,
        ZeroShotClass,
        ZeroShotPrompt,
        target_terms,
    )
    from promptfuse.search import (
        GCG,
        PEZ,
        AutoDAN,
        BeamSearch,
        Chain,
        Constraints,
        Greedy,
        Hypothesis,
        Polish,
        RandomAppend,
        RandomSearch,
        Result,
        Search,
        Step,
        Stopping,
        UniformCost,
    )
    from promptfuse.tasks import Captioner, Steer, caption, caption_many, optimize

# Imported at first use: torch and transformers take seconds, which `promptfuse --help` should not.
_HOME = {
    "Adapter": "adapters",
    "LexicalTransport": "adapters",
    "TProductTransport": "adapters",
    "AdapterError": "errors",
    "ConfigError": "errors",
    "ImageError": "errors",
    "ModelError": "errors",
    "PromptfuseError": "errors",
    "TextError": "errors",
    "PRESETS": "models",
    "Preset": "models",
    "load_image": "models",
    "load_model": "models",
    "BlackBox": "objectives",
    "ClassProbability": "objectives",
    "Continuation": "objectives",
    "Evaluation": "objectives",
    "Fluency": "objectives",
    "ImageSimilarity": "objectives",
    "Objective": "objectives",
    "TargetContinuation": "objectives",
    "Term": "objectives",
    "TextSimilarity": "objectives",
    "ZeroShotClass": "objectives",
    "ZeroShotPrompt": "objectives",
    "target_terms": "objectives",
    "GCG": "search",
    "PEZ": "search",
    "AutoDAN": "search",
    "BeamSearch": "search",
    "Chain": "search",
    "Constraints": "search",
    "Greedy": "search",
    "Hypothesis": "search",
    "Polish": "search",
    "RandomAppend": "search",
    "RandomSearch": "search",
    "Result": "search",
    "Search": "search",
    "Step": "search",
    "Stopping": "search",
    "UniformCost": "search",
    "Captioner": "tasks",
    "Steer": "tasks",
    "caption": "tasks",
    "caption_many": "tasks",
    "optimize": "tasks",
}

__all__ = [
    "GCG",
    "PEZ",
    "PRESETS",
    "Adapter",
    "AdapterError",
    "AutoDAN",
    "BeamSearch",
    "BlackBox",
    "Captioner",
    "Chain",
    "ClassProbability",
    "ConfigError",
    "Constraints",
    "Continuation",
    "Evaluation",
    "Fluency",
    "Greedy",
    "Hypothesis",
    "ImageError",
    "ImageSimilarity",
    "LexicalTransport",
    "ModelError",
    "Objective",
    "Polish",
    "Preset",
    "PromptfuseError",
    "RandomAppend",
    "RandomSearch",
    "Result",
    "Search",
    "Steer",
    "Step",
    "Stopping",
    "TProductTransport",
    "TargetContinuation",
    "Term",
    "TextError",
    "TextSimilarity",
    "UniformCost",
    "ZeroShotClass",
    "ZeroShotPrompt",
    "__version__",
    "caption",
    "caption_many",
    "load_image",
    "load_model",
    "optimize",
    "target_terms",
]


__getattr__ = make_lazy_getattr(__name__, _HOME)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)

"""The kinds of models, which configurations are matched against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptfuse._utils.registry import Registry

if TYPE_CHECKING:
    from promptfuse.models.base import Model

models: Registry[type[Model]] = Registry(
    "kind of model",
    "promptfuse.models",
    {
        "classifier": "promptfuse.models.classifier",
        "image-text": "promptfuse.models.image_text",
        "sentence-encoder": "promptfuse.models.sentence",
        "causal-lm": "promptfuse.models.causal",
        "diffusion": "promptfuse.models.diffusion",
    },
)
"""Kinds by name. Those of other packages are asked first, so that they can take a model from ours."""

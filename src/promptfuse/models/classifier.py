"""Sequence classifiers, such as sentiment models."""

from __future__ import annotations

from typing import Any

import transformers
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from promptfuse.errors import ConfigError, ModelError
from promptfuse.models.base import Batch, Model
from promptfuse.models.precision import at_least_float32
from promptfuse.models.registry import models


@models.register("classifier")
class SequenceClassifier(Model):
    """A sequence classifier: log-probabilities of its labels.

    Args:
        module: a model with a classification head.
        tokenizer: its fast tokenizer.
        name: the hub id or folder that it came from.

    Raises:
        ModelError: if the model has fewer than two labels, as those that predict a number have.
    """

    kind = "classifier"

    def __init__(self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str) -> None:
        super().__init__(module, tokenizer, name)
        if len(self.labels) < 2:
            raise ModelError(
                f"{name} predicts a number, not a label; use a classifier with two labels or more"
            )
        # Decoders pool at the last id that is not the configuration's padding, and refuse a batch without.
        if module.config.pad_token_id is None:
            module.config.pad_token_id = super().pad_id

    @classmethod
    def matches_config(cls, config: Any, architectures: tuple[str, ...]) -> bool:
        """Whether the model has a head for sequence classification."""
        del config
        return any("ForSequenceClassification" in name for name in architectures)

    @classmethod
    def loader(cls, config: Any) -> Any:
        """The automatic class with that head."""
        del config
        return transformers.AutoModelForSequenceClassification

    @property
    def pad_id(self) -> int:
        """The configuration's padding id, from which the model tells where a text ends."""
        configured = self.module.config.pad_token_id
        valid = isinstance(configured, int) and 0 <= configured < len(self.embedding_table)
        return configured if valid else super().pad_id

    @property
    def text_module(self) -> nn.Module:
        """The whole model."""
        module: nn.Module = self.module
        return module

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of their numbers."""
        names: dict[int, str] = self.module.config.id2label
        return tuple(str(names[index]) for index in sorted(names))

    def label_index(self, label: str) -> int:
        """The number of a label; case does not matter.

        Raises:
            ConfigError: if there is no such label; the message lists those there are.
        """
        names = [name.casefold() for name in self.labels]
        if label.casefold() not in names:
            known = ", ".join(self.labels)
            raise ConfigError(f"{self.name} has no label {label!r}; choose from: {known}")
        return names.index(label.casefold())

    def log_probabilities(self, batch: Batch) -> Float[Tensor, "rows labels"]:
        """Log-probabilities of the labels, (rows, labels); differentiable.

        They add up to one, except for a multi-label model, whose labels do not exclude each other.
        """
        return self.outputs(batch)

    def read_padded(self, batch: Batch) -> Float[Tensor, "rows labels"]:
        """Log-probabilities of the labels, (rows, labels), in one pass over padded rows."""
        logits = self.call(batch).logits
        if self.module.config.problem_type == "multi_label_classification":
            return functional.logsigmoid(at_least_float32(logits))
        return at_least_float32(logits).log_softmax(-1)

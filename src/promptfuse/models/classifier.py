"""Sequence classifiers, such as sentiment models."""

from __future__ import annotations

from torch import Tensor, nn

from promptfuse.errors import ConfigError
from promptfuse.models.base import Batch, Model


class SequenceClassifier(Model):
    """A sequence classifier: log-probabilities of its labels."""

    kind = "classifier"

    @property
    def text_module(self) -> nn.Module:
        """The whole model."""
        return self.module

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

    def log_probabilities(self, batch: Batch) -> Tensor:
        """Log-probabilities of the labels, (rows, labels); differentiable."""
        logits = self.module(input_ids=batch.ids, attention_mask=batch.mask).logits
        return logits.float().log_softmax(-1)

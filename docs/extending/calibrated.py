"""A kind of model: classifiers with a temperature."""

from typing import Any

from promptfuse.models import Batch, SequenceClassifier
from promptfuse.models.registry import models
from torch import Tensor


@models.register("calibrated-classifier")
class CalibratedClassifier(SequenceClassifier):
    """A single-label classifier whose ``config.json`` has a ``calibration_temperature`` for its logits."""

    kind = "calibrated-classifier"

    @classmethod
    def matches_config(cls, config: Any, architectures: tuple[str, ...]) -> bool:
        return hasattr(config, "calibration_temperature") and super().matches_config(config, architectures)

    def read_padded(self, batch: Batch) -> Tensor:
        temperature: float = self.module.config.calibration_temperature
        return (super().read_padded(batch) / temperature).log_softmax(-1)  # (rows, labels)

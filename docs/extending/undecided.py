"""A term: texts that a classifier is undecided about."""

from promptfuse.models import SequenceClassifier
from promptfuse.objectives import Term, terms
from torch import Tensor


@terms.register("Undecided")
class Undecided(Term):
    """Minus the entropy of the labels' probabilities under a single-label classifier, in nats.

    Args:
        model: the classifier; the probabilities of its labels add up to one.
        weight: factor in the objective.
        prefix: put before every text.
        suffix: put after it.
        name: key in results.
    """

    def __init__(
        self,
        model: SequenceClassifier,
        weight: float = 1.0,
        *,
        prefix: str = "",
        suffix: str = "",
        name: str = "undecided",
    ) -> None:
        super().__init__(model, weight, prefix, suffix, name)

    def loss_from_outputs(self, outputs: Tensor) -> Tensor:
        return (outputs.exp() * outputs).sum(1)  # (rows,) from log-probabilities, (rows, labels)

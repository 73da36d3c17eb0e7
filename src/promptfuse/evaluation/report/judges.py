"""Models that judge captions, and whether a judge or a comparison may mislead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptfuse.errors import ConfigError
from promptfuse.evaluation.report.load import Run

if TYPE_CHECKING:
    from promptfuse.models import Model


@dataclass(frozen=True)
class Judges:
    """Models that judge captions, beside those that were searched with.

    Attributes:
        clip: image-text model.
        lm: causal language model.
        classifier: classifier of texts.
        label: which of its labels the captions should have.
    """

    clip: Model | None = None
    lm: Model | None = None
    classifier: Model | None = None
    label: str | None = None

    def given(self) -> list[tuple[str, Model]]:
        """Those that there are, with what they are called in warnings."""
        named = [("CLIPScore's model", self.clip), ("Perplexity's model", self.lm)]
        named.append(("The classifier", self.classifier))
        return [(title, model) for title, model in named if model is not None]


def load_judges(
    clip: str | None = None,
    lm: str | None = None,
    classifier: str | None = None,
    label: str | None = None,
    device: str = "cpu",
) -> Judges:
    """Load models that judge.

    Raises:
        ConfigError: if a classifier comes without a label or a label without a classifier.
        ModelError: if a model cannot be loaded.
    """
    if classifier and not label:
        raise ConfigError(f"--classifier {classifier}: give the label that captions should have by --label")
    if label and not classifier:
        raise ConfigError(f"--label {label}: give the model that knows the label by --classifier")
    if not (clip or lm or classifier):
        return Judges()
    from promptfuse.models import load_model

    def load(name: str | None) -> Model | None:
        return None if name is None else load_model(name, device=device)

    return Judges(load(clip), load(lm), load(classifier), label)


def warnings(runs: Sequence[Run], judges: Judges) -> list[str]:
    """What may mislead a reader about the models of runs, a line each."""
    return [*_different_models(runs), *_searched_judges(runs, judges)]


def _different_models(runs: Sequence[Run]) -> Iterator[str]:
    """A line for each role that runs have different models in: their losses do not compare."""
    for role in dict.fromkeys(role for run in runs for role in run.models):
        found = {model["fingerprint"]: model["name"] for run in runs if (model := run.models.get(role))}
        if len(found) > 1:
            yield (
                f"The runs have different models as {role} ({', '.join(found.values())}): "
                "their losses by it do not compare."
            )


def _searched_judges(runs: Sequence[Run], judges: Judges) -> Iterator[str]:
    """A line for each judge that captions were searched with."""
    for title, model in judges.given():
        names = [
            run.name
            for run in runs
            if model.fingerprint in {found["fingerprint"] for found in run.models.values()}
        ]
        if names:
            yield (
                f"{title} ({model.name}) is one that the captions of {', '.join(names)} were searched with, "
                "which favours them; judge by another model."
            )

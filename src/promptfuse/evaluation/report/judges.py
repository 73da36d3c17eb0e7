"""Models that judge captions, and whether a judge or a comparison may mislead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from promptfuse.errors import ConfigError
from promptfuse.evaluation.report.folders import Run

if TYPE_CHECKING:
    from promptfuse.models import Model, SequenceClassifier


@dataclass(frozen=True)
class Judges:
    """Models that judge captions, beside those that were searched with.

    Attributes:
        clip: image-text model.
        lm: causal language model.
        classifier: classifier of texts.
        labels: which of its labels are looked for; none for those that the runs were steered to.
    """

    clip: Model | None = None
    lm: Model | None = None
    classifier: SequenceClassifier | None = None
    labels: tuple[str, ...] = ()

    def given(self) -> list[tuple[str, Model]]:
        """Those that there are, with what they are called in warnings."""
        named: list[tuple[str, Model | None]] = [("CLIPScore's model", self.clip)]
        named += [("Perplexity's model", self.lm), ("The classifier", self.classifier)]
        return [(title, model) for title, model in named if model is not None]


def load_judges(
    clip: str | None = None,
    lm: str | None = None,
    classifier: str | None = None,
    labels: Sequence[str] = (),
    device: str = "cpu",
) -> Judges:
    """Load models that judge.

    Raises:
        ConfigError: if the classifier has no such label, or there is a label without a classifier.
        ModelError: if a model cannot be loaded, or is of the wrong kind.
    """
    if labels and not classifier:
        raise ConfigError(f"--label {labels[0]}: give the model that knows the label by --classifier")
    if not (clip or lm or classifier):
        return Judges()
    from promptfuse.models import SequenceClassifier, load_model
    from promptfuse.objectives.checks import expect

    def load(name: str | None) -> Model | None:
        return None if name is None else load_model(name, device=device)

    judges = Judges(load(clip), load(lm))
    if classifier is None:
        return judges
    model = cast(
        SequenceClassifier, expect(load_model(classifier, device=device), "--classifier", SequenceClassifier)
    )
    known = [model.labels[model.label_index(label)] for label in labels]
    return replace(judges, classifier=model, labels=tuple(dict.fromkeys(known)))


def labels_of(runs: Sequence[Run], judges: Judges) -> tuple[str, ...]:
    """The labels that a classifier looks for in all captions, as it spells them.

    Raises:
        ConfigError: if there is a classifier, and neither it nor a run says for which.
    """
    model = judges.classifier
    if model is None or judges.labels:
        return judges.labels
    spelled = {label.casefold(): label for label in model.labels}
    wanted = [label.casefold() for run in runs for label in run.labels]
    found = tuple(dict.fromkeys(spelled[label] for label in wanted if label in spelled))
    if not found:
        raise ConfigError(
            f"--classifier {model.name}: no run was steered to a label of it; give one by --label: "
            f"{', '.join(model.labels)}"
        )
    return found


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

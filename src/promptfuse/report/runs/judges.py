"""Models that judge captions, and whether a judge or a comparison may mislead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from promptfuse.errors import ConfigError
from promptfuse.report.runs.folders import Run, mapping

if TYPE_CHECKING:
    from promptfuse.evaluation.metrics.text_judge import TextJudge
    from promptfuse.models import Model, SequenceClassifier


@dataclass(frozen=True)
class Judges:
    """Models that judge captions, beside those of the searches.

    Attributes:
        clip: image-text model.
        lm: causal language model.
        classifier: classifier of texts.
        labels: which of its labels are looked for; none for those that the runs were steered to.
        text: judge that was trained on labelled texts.
    """

    clip: Model | None = None
    lm: Model | None = None
    classifier: SequenceClassifier | None = None
    labels: tuple[str, ...] = ()
    text: TextJudge | None = None

    def given(self) -> list[tuple[str, Model]]:
        """Those that there are, with what they are called in warnings."""
        named = (
            ("CLIPScore's model", self.clip),
            ("Perplexity's model", self.lm),
            ("The classifier", self.classifier),
            ("The trained judge's encoder", self.text.encoder if self.text is not None else None),
        )
        return [(title, model) for title, model in named if model is not None]


def load_judges(
    clip: str | None = None,
    lm: str | None = None,
    classifier: str | None = None,
    labels: Sequence[str] = (),
    device: str = "cpu",
) -> Judges:
    """Load models that judge.

    Args:
        clip: name or path of an image-text model.
        lm: of a causal language model.
        classifier: of a classifier of texts.
        labels: of the classifier, to look for.
        device: for all of them.

    Raises:
        ConfigError: if the classifier has no such label, or there is a label without a classifier.
        ModelError: if a model cannot be loaded, or is of the wrong kind.
    """
    if labels and not classifier:
        raise ConfigError(f"--label {labels[0]}: give the model that knows the label by --classifier")
    if not (clip or lm or classifier):
        return Judges()
    from promptfuse.models import SequenceClassifier, load_model
    from promptfuse.objectives.checks import require_model_kind

    models = [name and load_model(name, device=device) for name in (clip, lm, classifier)]
    judges = Judges(models[0] or None, models[1] or None)
    if not models[2]:
        return judges
    model = cast(SequenceClassifier, require_model_kind(models[2], "--classifier", SequenceClassifier))
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
            f"--classifier {model.name}: no run was steered to one of its labels; give one by --label: "
            f"{', '.join(model.labels)}"
        )
    return found


def warnings(runs: Sequence[Run], judges: Judges) -> list[str]:
    """What may mislead a reader about the models of runs, a line each."""
    searched = [
        f"{title} ({model.name}) guided the search for the captions of {', '.join(names)}, so it favours "
        "them; judge by another model."
        for title, model in judges.given()
        if (names := searched_by(runs, model))
    ]
    return [*_different_models(runs), *_mixed_models(runs), *searched]


def searched_by(runs: Sequence[Run], model: Model) -> list[str]:
    """The names of the runs whose captions were searched with a model."""
    own = {model.identity, model.fingerprint}
    return [
        run.name
        for run in runs
        if own & {found["identity"] or found["fingerprint"] for found in run.models.values()}
    ]


def is_independent(runs: Sequence[Run], judges: Judges) -> bool:
    """Whether there is a trained judge whose encoder no run was searched with."""
    return judges.text is not None and not searched_by(runs, judges.text.encoder)


def _different_models(runs: Sequence[Run]) -> Iterator[str]:
    """A line for each role that runs have different models in: their losses do not compare."""
    for role in dict.fromkeys(role for run in runs for role in run.models):
        given = [model for run in runs if (model := run.models.get(role))]
        whole = all(model["identity"] for model in given)
        found = {model["identity" if whole else "fingerprint"]: model for model in given}
        if len(found) > 1:
            names = [model["name"] for model in found.values()]
            if len(set(names)) < len(names):
                names = [f"{one['name']} {one['identity'] or one['fingerprint']}" for one in found.values()]
            yield (
                f"The runs have different models as {role} ({', '.join(names)}): their losses by it do not "
                "compare."
            )
        elif not whole and any(model["identity"] for model in given):
            yield (
                f"Whether the runs have the same model as {role} ({given[0]['name']}) cannot be told: an "
                "earlier version recorded only its embeddings and tokenizer."
            )


def _mixed_models(runs: Sequence[Run]) -> Iterator[str]:
    """A line for each run whose captions are, or may be, from different models."""
    for run in runs:
        sessions = [mapping(session.get("models")) for session in run.sessions]
        known = [models for models in sessions if any(models.values())]
        roles = dict.fromkeys(role for models in known for role in models)
        mixed = [role for role in roles if len({str(models.get(role, "")) for models in known}) > 1]
        if mixed:
            yield (
                f"The captions of {run.name} were found with different models as {', '.join(mixed)}, one "
                "after the other: its numbers describe no single system."
            )
        elif len(sessions) > 1 and len(known) < len(sessions) and run.models:
            yield (
                f"{run.name} was resumed by an earlier version, which compared only its models' embeddings "
                "and tokenizers: whether all its captions are by the same models cannot be told."
            )

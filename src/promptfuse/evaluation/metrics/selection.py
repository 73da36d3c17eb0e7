"""Which metrics there are, and which of them were asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from promptfuse._utils.yaml_files import nearest
from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics.base import Captions, Column, Metric, Unavailable
from promptfuse.evaluation.metrics.coco import Bleu, CiderD, RougeL
from promptfuse.evaluation.metrics.coco_java import Meteor, Spice
from promptfuse.evaluation.metrics.diversity import Diversity, Words

if TYPE_CHECKING:
    from promptfuse.evaluation.metrics.text_judge import TextJudge
    from promptfuse.models import Model

JUDGED = "judged"
"""The group of a trained judge's labels, whose columns are named after them: ``judged_positive``."""

METRICS: dict[str, dict[str, str]] = {
    "bleu": dict(Bleu.titles),
    "rouge_l": dict(RougeL.titles),
    "meteor": dict(Meteor.titles),
    "cider_d": dict(CiderD.titles),
    "spice": dict(Spice.titles),
    "clipscore": {"clipscore": "CLIPScore", "refclipscore": "RefCLIPScore"},
    "perplexity": {"perplexity_word": "perplexity / word", "perplexity_token": "perplexity / token"},
    "sentiment": {"sentiment_accuracy": "sentiment accuracy"},
    JUDGED: {JUDGED: "judged labels"},
    "diversity": dict(Diversity.titles),
    "words": dict(Words.titles),
}
"""Columns and their titles by group, in the order of tables. Groups and columns can be asked for."""


def choose(names: Sequence[str] | None) -> dict[str, set[str]]:
    """Columns that were asked for, by group, in the order of ``METRICS``; all for None.

    Raises:
        ConfigError: if a name is not known, or there is none.
    """
    if names is None:
        return {group: set(columns) for group, columns in METRICS.items()}
    if not names:
        raise ConfigError(f"no metric is asked for; choose from: {', '.join(METRICS)}")
    known = [*METRICS, *(column for columns in METRICS.values() for column in columns)]
    chosen: dict[str, set[str]] = {group: set() for group in METRICS}
    for name in names:
        if name.startswith(f"{JUDGED}_"):
            chosen[JUDGED].add(name)  # Which labels there are is known when the judge is.
            continue
        if name not in known:
            raise ConfigError(f"no metric is called {name!r}; {nearest(name, list(dict.fromkeys(known)))}")
        for group, columns in METRICS.items():
            # CLIPScore is a group and one of its columns; its name stands for the group.
            chosen[group] |= set(columns) if name == group else {name} & set(columns)
    return {group: columns for group, columns in chosen.items() if columns}


def is_chosen(name: str, columns: set[str], group: str) -> bool:
    """Whether a column of a group was asked for.

    Args:
        name: of the column.
        columns: those of the group that were asked for, as ``choose`` gives them.
        group: its name.
    """
    # All labels, and the line that says why there are none.
    return name in columns or (group == JUDGED and JUDGED in {name, *columns})


class Missing(Metric):
    """A metric that cannot be computed, for a reason that is known beforehand.

    Args:
        group: its name in ``METRICS``.
        reason: why.
    """

    def __init__(self, group: str, reason: str) -> None:
        self.group, self.reason = group, reason

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        """See ``Metric``."""
        del captions
        return [Unavailable(name, title, self.reason) for name, title in METRICS[self.group].items()]


def build(
    group: str,
    clip: Model | None,
    lm: Model | None,
    classifier: Model | None,
    label: str | None,
    text_judge: TextJudge | None = None,
) -> Metric:
    """The metric of a group, or one that says which model it lacks.

    Raises:
        ConfigError: if the classifier has no such label.
        ModelError: if a model is of the wrong kind.
    """
    plain: dict[str, Callable[[], Metric]] = {
        "bleu": Bleu,
        "rouge_l": RougeL,
        "meteor": Meteor,
        "cider_d": CiderD,
        "spice": Spice,
        "diversity": Diversity,
        "words": Words,
    }
    if group in plain:
        return plain[group]()
    # Imported here: what needs no model needs no torch, which takes seconds to import.
    if group == "clipscore" and clip is not None:
        from promptfuse.evaluation.metrics.clipscore import ClipScore

        return ClipScore(clip)
    if group == "perplexity" and lm is not None:
        from promptfuse.evaluation.metrics.language import Perplexity

        return Perplexity(lm)
    if group == "sentiment" and classifier is not None:
        from promptfuse.evaluation.metrics.language import LabelAccuracy

        return LabelAccuracy(classifier, label)
    if group == JUDGED and text_judge is not None:
        from promptfuse.evaluation.metrics.text_judge import JudgedLabels

        return JudgedLabels(text_judge)
    lacking = {
        "clipscore": "no image-text model is given; give one (--clip) with the photos (--images)",
        "perplexity": "no language model is given; give one (--lm)",
        "sentiment": "no classifier is given; give one (--classifier) with the label (--label)",
        JUDGED: "no labelled texts are given; give some (--judge-texts) with an encoder (--judge-model)",
    }
    return Missing(group, lacking[group])

"""A judge of texts that is trained on labelled texts, and that says how often it is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics.base import Captions, Column, Floats, Metric, Unavailable, mean
from promptfuse.evaluation.metrics.division import LIMIT, divide
from promptfuse.evaluation.metrics.encoding import BATCH, cut_note, read_in_batches
from promptfuse.evaluation.metrics.judged import LabelShares
from promptfuse.evaluation.metrics.labelled_texts import read_labelled_texts
from promptfuse.evaluation.metrics.registry import JUDGED
from promptfuse.models import ImageTextModel, Model, SentenceEncoder
from promptfuse.objectives.checks import require_model_kind

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""What the regression's ``C`` is chosen from: the larger, the less its weights are held down."""

FOLDS = 5
"""Parts of the training texts, each of which the choice is measured on once."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TextJudge:
    """Multinomial logistic regression on frozen features of texts.

    It is independent of whatever the texts were searched with, as long as its encoder and its labelled texts
    are. ``fit`` makes one.

    Attributes:
        encoder: makes the features; frozen.
        labels: by name, in alphabetic order.
        weights: (labels, d).
        bias: (labels,).
        trained: how many texts of each label it was trained on, (labels,).
        confusion: of the texts that it was not trained on, how many of each label (rows) it gives each label
            (columns), (labels, labels).
        penalty: ``C`` of the regression, as cross-validation chose it.
        seed: of the division into texts to train on and to measure on, and of the folds.
        sources: where the labelled texts are from.
        notices: what was left out of them, a line each.
    """

    encoder: Model = field(repr=False)
    labels: tuple[str, ...]
    weights: Floats = field(repr=False)
    bias: Floats = field(repr=False)
    trained: Floats
    confusion: Floats
    penalty: float
    seed: int = 0
    sources: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        labels: Sequence[str],
        encoder: Model,
        *,
        held_out: Sequence[bool | None] | None = None,
        limit: int | None = LIMIT,
        seed: int = 0,
        sources: Sequence[str] = (),
        batch_size: int = BATCH,
        progress: Progress | None = None,
    ) -> TextJudge:
        """Train a judge, and measure it on texts that it was not trained on.

        The labels weigh alike, whatever their numbers of texts. The penalty is chosen by cross-validation on
        the texts that are trained on; those that are held out have no part in it.

        Args:
            texts: (n,).
            labels: (n,), any number of different ones.
            encoder: a sentence encoder, or an image-text model, of which the text tower is used.
            held_out: (n,), which texts to measure on (True) or train on (False), where that is known.
            limit: the most texts of a label on a side; None for all.
            seed: of the division and of the folds.
            sources: where the texts are from, for the record.
            batch_size: texts that are encoded at a time.
            progress: is told how many texts are encoded, and of how many.

        Raises:
            ConfigError: if scikit-learn is missing, there are fewer than two labels, too few texts of one, or
                an empty text.
            ModelError: if the encoder is of another kind.
        """
        _require_sklearn()
        encoder = require_model_kind(encoder, "a judge of texts", SentenceEncoder, ImageTextModel)
        empty = next((index for index, text in enumerate(texts) if not text.strip()), None)
        if empty is not None:
            raise ConfigError(f"labelled text {empty + 1} is empty; write one, or leave it out")
        parts = divide(texts, labels, held_out, limit=limit, seed=seed)
        rows = [*parts.training, *parts.held_out]
        features, cut = _features(encoder, [texts[row] for row in rows], batch_size, progress)
        kinds = sorted(set(labels))
        codes = np.array([kinds.index(labels[row]) for row in rows])
        count = len(parts.training)
        model, penalty = _regress(features[:count], codes[:count], seed)
        weights, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
        if len(kinds) == 2:
            # Of two labels scikit-learn has the second's weights against the first's.
            weights, bias = np.stack([0 * weights[0], weights[0]]), np.array([0.0, bias[0]])
        found = (features[count:] @ weights.T + bias).argmax(1)
        confusion = np.zeros((len(kinds), len(kinds)))
        np.add.at(confusion, (codes[count:], found), 1)
        notices = [*parts.notices, *filter(None, [cut_note(cut, encoder, "labelled text")])]
        return cls(
            encoder, tuple(kinds), weights, bias, np.bincount(codes[:count]).astype(np.float64), confusion,
            penalty, seed, tuple(sources), tuple(notices),
        )  # fmt: skip

    @property
    def held_out(self) -> Floats:
        """How many texts of each label it was measured on, (labels,)."""
        counts: Floats = self.confusion.sum(1)
        return counts

    @property
    def recall(self) -> Floats:
        """The share of each label's held-out texts that it gives the label, (labels,)."""
        shares: Floats = self.confusion.diagonal() / self.held_out
        return shares

    @property
    def accuracy(self) -> float:
        """The share of all held-out texts that it gives their label."""
        return float(self.confusion.trace() / self.confusion.sum())

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the labels' recalls, which a judge that guesses has 1 / labels of."""
        return float(self.recall.mean())

    @property
    def better_than_chance(self) -> bool:
        """Whether the balanced accuracy less 1.96 of its standard errors is above that of guessing."""
        chance = 1 / len(self.labels)
        # Of a recall of 0 or 1 the variance would be zero, however few texts it is of.
        shrunk = (self.confusion.diagonal() + 1) / (self.held_out + 2)
        error = float(np.sqrt((shrunk * (1 - shrunk) / self.held_out).sum())) / len(self.labels)
        return self.balanced_accuracy - 1.96 * error > chance

    def label_index(self, label: str) -> int:
        """The place of a label; case does not matter.

        Raises:
            ConfigError: if there is no such label.
        """
        known = [one.casefold() for one in self.labels]
        if label.casefold() not in known:
            raise ConfigError(
                f"the judge has no label {label!r}; its texts are labelled {', '.join(self.labels)}"
            )
        return known.index(label.casefold())

    def probabilities(
        self, texts: Sequence[str], *, batch_size: int = BATCH, progress: Progress | None = None
    ) -> Floats:
        """How probable each label is of each text, (texts, labels); NaN of texts that are empty."""
        return self._judged(texts, batch_size, progress)[0]

    def judge(self, texts: Sequence[str], *, batch_size: int = BATCH) -> list[str | None]:
        """The likeliest label of each text; None of texts that are empty."""
        found = self.probabilities(texts, batch_size=batch_size)
        return [None if np.isnan(row[0]) else self.labels[int(row.argmax())] for row in found]

    def shares(self, texts: Sequence[str], *, batch_size: int = BATCH) -> dict[str, float]:
        """The share of texts that it gives each label, from 0 to 1; an empty text counts and has none."""
        found = self.judge(texts, batch_size=batch_size)
        return {label: found.count(label) / max(1, len(found)) for label in self.labels}

    def _judged(
        self, texts: Sequence[str], batch_size: int, progress: Progress | None
    ) -> tuple[Floats, list[int]]:
        """Probabilities, and which texts were cut."""
        found = np.full((len(texts), len(self.labels)), np.nan)
        given = [index for index, text in enumerate(texts) if text.strip()]
        if not given:
            return found, []
        features, cut = _features(self.encoder, [texts[index] for index in given], batch_size, progress)
        scores = features @ self.weights.T + self.bias
        raised = np.exp(scores - scores.max(1, keepdims=True))
        found[given] = raised / raised.sum(1, keepdims=True)
        return found, [given[index] for index in cut]

    @cached_property
    def about(self) -> str:
        """What a reader of its verdicts has to know: how it came about and how often it is right."""
        trained = ", ".join(
            f"{count:,.0f} {label}" for label, count in zip(self.labels, self.trained, strict=True)
        )
        right = ", ".join(
            f"{100 * share:.1f}% of {count:,.0f} {label}"
            for label, share, count in zip(self.labels, self.recall, self.held_out, strict=True)
        )
        warning = "" if self.better_than_chance else " and so is no better than chance: do not use it"
        return (
            f"by a judge trained on {trained} texts with features of {self.encoder.name}; of held-out texts "
            f"it recognises {right} ({100 * self.accuracy:.1f}% of all){warning}"
        )

    def to_dict(self) -> dict[str, Any]:
        """How it came about and how often it is right, as in JSON."""
        return {
            "encoder": self.encoder.describe(),
            "sources": list(self.sources),
            "labels": {
                label: {
                    "trained": int(self.trained[place]),
                    "held_out": int(self.held_out[place]),
                    "recall": float(self.recall[place]),
                    "judged": dict(zip(self.labels, map(int, self.confusion[place]), strict=True)),
                }
                for place, label in enumerate(self.labels)
            },
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "better_than_chance": self.better_than_chance,
            "penalty": self.penalty,
            "seed": self.seed,
            "notices": list(self.notices),
        }


class JudgedLabels(Metric):
    """The share of captions that a trained judge gives each label, in per cent.

    Every title has the judge's recall of the label, and every note what else there is to know, so that no
    number is shown without them.

    Args:
        judge: the judge.
        batch_size: texts at a time.
    """

    titles: ClassVar[Mapping[str, str]] = LabelShares.titles

    def __init__(self, judge: TextJudge, *, batch_size: int = BATCH) -> None:
        self.judge = judge
        self.batch_size = batch_size

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        """A column for each label, in per cent; an empty caption has no label."""
        found, cut = self.judge._judged(captions.texts, self.batch_size, None)
        given = np.isfinite(found[:, 0])
        likeliest = np.where(given, np.where(given[:, None], found, 0.0).argmax(1), -1)
        note = "; ".join(filter(None, [self.judge.about, cut_note(cut, self.judge.encoder)]))
        return [
            mean(
                f"{JUDGED}_{label}",
                f"judged {label}, % (recall {100 * self.judge.recall[place]:.0f}%)",
                "neither",
                100.0 * (likeliest == place),
                note=note,
                cut=cut,
            )
            for place, label in enumerate(self.judge.labels)
        ]


def train_judge(
    sources: Sequence[str],
    encoder: str,
    *,
    device: str = "cpu",
    limit: int | None = LIMIT,
    seed: int = 0,
    progress: Progress | None = None,
) -> TextJudge:
    """Train a judge on files of labelled texts.

    Args:
        sources: files with columns of texts and labels, or ``LABEL=FILE`` for files with one label.
        encoder: what ``load_model`` loads.
        device: where the encoder runs.
        limit: the most texts of a label on a side; None for all.
        seed: of the division and of the folds.
        progress: is told how many texts are encoded, and of how many.

    Raises:
        ConfigError: if a file cannot be read or has too little in it, or scikit-learn is missing.
        ModelError: if the encoder cannot be loaded, or is of another kind.
    """
    from promptfuse.models import load_model

    _require_sklearn()
    read = read_labelled_texts(sources)
    divide(read.texts, read.labels, read.held_out, limit=limit, seed=seed)  # Before a model is loaded.
    return TextJudge.fit(
        read.texts, read.labels, load_model(encoder, device=device), held_out=read.held_out, limit=limit,
        seed=seed, sources=read.sources, progress=progress,
    )  # fmt: skip


def _features(
    encoder: Model, texts: Sequence[str], batch_size: int, progress: Progress | None
) -> tuple[Floats, list[int]]:
    """Unit features, (texts, d), and which texts were cut."""
    read = cast("SentenceEncoder | ImageTextModel", encoder).text_features
    found, cut = read_in_batches(encoder, texts, read, batch_size, progress)
    return found.numpy(), cut


def _require_sklearn() -> None:
    try:
        import sklearn.linear_model  # noqa: F401
    except ImportError:
        raise ConfigError("a judge of texts needs scikit-learn; pip install 'promptfuse[eval]'") from None


def _regress(features: Floats, codes: Floats, seed: int) -> tuple[LogisticRegression, float]:
    """The regression with the penalty that cross-validation finds best, and that penalty."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    search = GridSearchCV(
        LogisticRegression(class_weight="balanced", max_iter=5000),
        {"C": PENALTIES},
        scoring="balanced_accuracy",
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
        error_score="raise",
    )
    search.fit(features, codes)
    return search.best_estimator_, float(search.best_params_["C"])

"""What a metric takes and gives: one interface for all, and the statistics that a bootstrap can redo."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from promptfuse.evaluation.metrics.tokens import Kind, Tokens
    from promptfuse.models import Model

Floats = NDArray[np.float64]
Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Captions:
    """One caption a photo, with what is known of the photo.

    Attributes:
        ids: of the photos, in the order of all arrays that metrics give.
        texts: the captions, (photos,).
        references: captions that people wrote, (photos,) of one or more; all empty if there are none.
        images: the photos as paths or Pillow images; None if they are not given.
        seed: of whatever a metric draws.
        tokenizer: what cuts captions into words: ``stanford`` (needs Java), ``python``, or ``auto``:
            the first where there is Java.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    references: Sequence[Sequence[str]] = ()
    images: Sequence[Any] | None = field(default=None, repr=False)
    seed: int = 0
    tokenizer: Kind = "auto"

    @cached_property
    def tokens(self) -> Tokens:
        """Captions and references cut into words, by Java's tokenizer or, without Java, by ours."""
        from promptfuse.evaluation.metrics.tokens import tokenise

        return tokenise(self.texts, self.references, self.tokenizer)


@dataclass(frozen=True)
class Unavailable:
    """A column that could not be computed.

    Attributes:
        name: of the column, as in JSON.
        title: of the column, as in tables.
        reason: why, and what to do about it.
    """

    name: str
    title: str
    reason: str


@dataclass(frozen=True)
class Column(ABC):
    """One number about a system, and what its bootstrap needs.

    Attributes:
        name: as in JSON: ``cider_d``.
        title: as in tables: ``CIDEr-D``.
        better: which direction is better.
        values: what each caption gives alone, (photos,); NaN where a caption gives none.
        note: what a reader of the number has to know; empty if nothing.
        cut: indices of the captions that are longer than a model reads, so that their values are of a part.
    """

    name: str
    title: str
    better: Better
    values: Floats = field(repr=False)
    note: str = field(default="", kw_only=True)
    cut: frozenset[int] = field(default=frozenset(), kw_only=True, repr=False)

    @abstractmethod
    def estimate(self, counts: Floats) -> Floats:
        """The number on resampled photos.

        Args:
            counts: (resamples, photos), how often each photo was drawn.

        Returns:
            (resamples,).
        """

    @property
    def resamples(self) -> bool:
        """Whether the number on a resample estimates the same thing, so that intervals have a meaning."""
        return True

    @cached_property
    def value(self) -> float:
        """The number on the photos as they are."""
        return float(self.estimate(np.ones((1, len(self.values))))[0])

    @property
    def n(self) -> int:
        """How many captions gave a value."""
        return int(np.isfinite(self.values).sum())


@dataclass(frozen=True)
class Sums(Column):
    """A number that is a function of sums over the captions, as corpus BLEU is.

    Attributes:
        parts: what is summed, (photos, k).
        finish: from sums, (resamples, k), to numbers, (resamples,).
    """

    parts: Floats = field(repr=False)
    finish: Callable[[Floats], Floats] = field(repr=False)

    def estimate(self, counts: Floats) -> Floats:
        """The function of the resampled sums, (resamples,)."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return self.finish(counts @ self.parts)


def ratio(sums: Floats) -> Floats:
    """First sum over the second, NaN where that is zero."""
    result: Floats = sums[:, 0] / sums[:, 1]
    return result


def mean(
    name: str,
    title: str,
    better: Better,
    values: Sequence[float] | Floats,
    *,
    note: str = "",
    cut: Iterable[int] = (),
) -> Sums:
    """A column that is the mean of the captions' own values; NaN are left out."""
    found = np.asarray(values, dtype=np.float64)
    given = np.isfinite(found)
    parts = np.stack([np.where(given, found, 0.0), given.astype(np.float64)], axis=1)
    return Sums(name, title, better, found, parts, ratio, note=note, cut=frozenset(cut))


@dataclass(frozen=True)
class Pairs(Column):
    """A number that is the mean over all ordered pairs of different captions of a sample.

    A photo that was drawn twice makes no pair with itself: a caption resembles itself, which says nothing.

    Attributes:
        rows: which photos are in the sample, (sample,).
        matrix: the pairs' numbers, (sample, sample); the diagonal is not read.
    """

    rows: NDArray[np.int64] = field(repr=False)
    matrix: Floats = field(repr=False)

    def estimate(self, counts: Floats) -> Floats:
        """The mean over the resampled pairs, (resamples,)."""
        chosen = counts[:, self.rows]
        matrix = self.matrix.copy()
        np.fill_diagonal(matrix, 0.0)
        total = ((chosen @ matrix) * chosen).sum(1)
        pairs = chosen.sum(1) ** 2 - (chosen**2).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            result: Floats = total / pairs
        return result


@dataclass(frozen=True)
class Whole(Column):
    """A number of the whole set that a resample cannot estimate, such as the size of the vocabulary.

    A resample repeats captions, and so has fewer different words than as many new captions would have.

    Attributes:
        number: on the photos as they are.
    """

    number: float

    @property
    def n(self) -> int:
        """All captions."""
        return len(self.values)

    @property
    def resamples(self) -> bool:
        """False: a resample cannot estimate it."""
        return False

    def estimate(self, counts: Floats) -> Floats:
        """The number itself; it holds for no other counts than ones."""
        return np.full(len(counts), self.number)


@dataclass(frozen=True)
class JudgingModels:
    """The models that judge captions; None for those that are not given.

    Attributes:
        clip: image-text model.
        lm: causal language model.
        classifier: sequence classifier.
        label: which of its labels captions should have.
        text_judge: judge that was trained on labelled texts.
    """

    clip: Model | None = None
    lm: Model | None = None
    classifier: Model | None = None
    label: str | None = None
    text_judge: Any = None


class Metric(ABC):
    """Computes one column or several that come together.

    Subclass it and register the class by ``@metrics.register("name")`` or an entry point of the group
    ``promptfuse.metrics``; the name, and each column's, can then be asked for.

    Attributes:
        titles: the columns' names and titles.
        needs_references: whether captions that people wrote are needed.
    """

    titles: ClassVar[Mapping[str, str]]
    needs_references: ClassVar[bool] = False

    @classmethod
    def create(cls, models: JudgingModels) -> Metric:
        """The metric with the models that it needs; by default it needs none."""
        del models
        return cls()

    @abstractmethod
    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        """All columns, in the order of ``titles``; those that cannot be had say why."""

    def unavailable(self, reason: str) -> list[Column | Unavailable]:
        """All columns as not available."""
        return [Unavailable(name, title, reason) for name, title in self.titles.items()]

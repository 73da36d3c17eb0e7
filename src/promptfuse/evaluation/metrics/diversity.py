"""How varied the captions of different photos are, and how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from promptfuse.evaluation.metrics.base import (
    Captions,
    Column,
    Floats,
    Metric,
    Pairs,
    Unavailable,
    Whole,
    mean,
)
from promptfuse.evaluation.metrics.registry import metrics

SAMPLE = 500
"""Captions whose pairs are compared; of more captions so many are drawn."""


@metrics.register("diversity")
class Diversity(Metric):
    """Distinct-1 and 2, self-CIDEr, pairwise CIDEr, size of the vocabulary and share of unique captions.

    All are over the captions of *different* photos, one each: they tell whether a system says the same of
    every photo. (Between systems they can be compared for equally many captions only.)

    Args:
        sample: how many captions are compared pair by pair.
    """

    titles: ClassVar[Mapping[str, str]] = {
        "distinct_1": "distinct-1",
        "distinct_2": "distinct-2",
        "self_cider": "self-CIDEr",
        "pairwise_cider": "pairwise CIDEr",
        "vocabulary": "vocabulary",
        "unique": "unique captions",
    }

    def __init__(self, sample: int = SAMPLE) -> None:
        self.sample = sample

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        """Six columns, of which only the pairwise CIDEr has an interval."""
        texts = [text.split() for text in captions.tokens.texts]
        references = [[text.split() for text in several] for several in captions.tokens.references]
        times = Counter(map(tuple, texts))
        nothing = np.full(len(texts), np.nan)
        rarity = np.array([1 / times[tuple(text)] for text in texts])
        return [
            self._distinct(texts, 1),
            self._distinct(texts, 2),
            *self._ciders(texts, references, captions.seed),
            self._whole("vocabulary", nothing, len({word for text in texts for word in text})),
            self._whole("unique", rarity, len(times) / len(texts)),
        ]

    def _whole(self, name: str, values: Floats, number: float) -> Whole:
        return Whole(name, self.titles[name], "higher", values, number)

    def _distinct(self, texts: Sequence[Sequence[str]], n: int) -> Column | Unavailable:
        """Different n-grams by all n-grams (Li et al. 2016, section 5)."""
        name = f"distinct_{n}"
        grams = [_grams(text, n) for text in texts]
        total = sum(map(len, grams))
        if not total:
            return Unavailable(name, self.titles[name], f"no caption has {n} words")
        own = np.array([len(set(each)) / len(each) if each else np.nan for each in grams])
        return self._whole(name, own, len({gram for each in grams for gram in each}) / total)

    def _ciders(
        self, texts: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]], seed: int
    ) -> list[Column | Unavailable]:
        """Self-CIDEr and the mean pairwise CIDEr of a sample."""
        titles = {name: self.titles[name] for name in ("self_cider", "pairwise_cider")}
        documents = [[text] for text in texts] if not any(references) else references
        rows = np.arange(len(texts))
        if len(rows) > self.sample:
            rows = np.sort(np.random.default_rng(seed).choice(rows, self.sample, replace=False))
        kernel = cider_kernel([texts[row] for row in rows.tolist()], documents)
        said = np.diag(kernel) > 0
        rows, kernel = rows[said], kernel[np.ix_(said, said)]
        if len(rows) < 2:
            return [Unavailable(name, title, "fewer than two captions have words that tell photos apart")
                    for name, title in titles.items()]  # fmt: skip
        values = np.full(len(texts), np.nan)
        own = 10 * (kernel.sum(1) - kernel.diagonal()) / (len(rows) - 1)
        values[rows] = own
        nothing = np.full(len(texts), np.nan)
        return [
            Whole("self_cider", titles["self_cider"], "higher", nothing, self_cider(kernel)),
            Pairs("pairwise_cider", titles["pairwise_cider"], "lower", values, rows, 10 * kernel),
        ]


@metrics.register("words")
class Words(Metric):
    """Words in a caption, without punctuation."""

    titles: ClassVar[Mapping[str, str]] = {"words": "words"}

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        """The mean number of words, without punctuation."""
        return [mean("words", "words", "neither", [len(text.split()) for text in captions.tokens.texts])]


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All n-grams in order."""
    return [tuple(words[first : first + n]) for first in range(len(words) - n + 1)]


def cider_kernel(texts: Sequence[Sequence[str]], documents: Sequence[Sequence[Sequence[str]]]) -> Floats:
    """CIDEr (Vedantam et al. 2015, section 3) between captions, from 0 to 1, with ones on the diagonal.

    The mean over n = 1..4 of the cosines of tf-idf vectors; without CIDEr-D's clipping and penalty, which
    would make it no kernel; without stemming.

    Args:
        texts: words of the captions.
        documents: words of the references of each photo, where document frequencies come from.

    Returns:
        (texts, texts); rows of zeros for captions without an n-gram that tells photos apart.
    """
    kernel = np.zeros((len(texts), len(texts)))
    for n in range(1, 5):
        frequency = Counter(
            gram for several in documents for gram in {gram for text in several for gram in _grams(text, n)}
        )
        grams = [Counter(_grams(text, n)) for text in texts]
        columns = {
            gram: column for column, gram in enumerate(dict.fromkeys(g for each in grams for g in each))
        }
        vectors = np.zeros((len(texts), len(columns)))
        for row, each in enumerate(grams):
            for gram, count in each.items():
                vectors[row, columns[gram]] = count * np.log(len(documents) / max(1, frequency[gram]))
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
        kernel += vectors @ vectors.T / 4
    # Captions of fewer than four words have no longest n-grams; likeness to itself is one all the same.
    scale = np.sqrt(kernel.diagonal())
    scale = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    result: Floats = kernel * scale[:, None] * scale
    return result


def self_cider(kernel: Floats) -> float:
    """Self-CIDEr of a set of captions (Wang & Chan 2019, section 3): 0 if all are alike, 1 if none are.

    -log_m(r), where r is the largest singular value's share of the sum of all: with m unlike captions all
    are equal and r = 1/m. The singular values are the square roots of the kernel's eigenvalues.

    Args:
        kernel: (m, m), m at least 2, with ones on the diagonal.
    """
    roots = np.sqrt(np.clip(np.linalg.eigvalsh(kernel), 0, None))
    share = roots.max() / roots.sum()
    return float(np.clip(-np.log(share) / np.log(len(kernel)), 0, 1))

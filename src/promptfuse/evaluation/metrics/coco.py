"""The metrics of COCO's caption evaluation (Chen et al. 2015), computed by pycocoevalcap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from promptfuse.evaluation.metrics.base import Captions, Column, Floats, Metric, Sums, Unavailable, mean
from promptfuse.evaluation.metrics.java import package_folder
from promptfuse.evaluation.metrics.registry import metrics


@metrics.register("bleu")
class Bleu(Metric):
    """BLEU-1 to BLEU-4 of the corpus (Papineni et al. 2002), with the closest reference's length."""

    titles: ClassVar[Mapping[str, str]] = {f"bleu_{n}": f"BLEU-{n}" for n in (1, 2, 3, 4)}
    needs_references: ClassVar[bool] = True

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        """Four columns of the corpus; captions' own values are smoothed by 1e-15 only, so often near zero."""
        package_folder()
        from pycocoevalcap.bleu.bleu_scorer import BleuScorer

        scorer = BleuScorer(n=4)
        for text, references in zip(captions.tokens.texts, captions.tokens.references, strict=True):
            scorer += (text, references)
        _, own = scorer.compute_score(option="closest", verbose=0)
        parts = []
        for counts in scorer.ctest:
            length = counts["testlen"]
            closest = min((abs(found - length), found) for found in counts["reflen"])[1]
            parts.append([*counts["correct"], *counts["guess"], length, closest])
        sums = np.asarray(parts, dtype=np.float64)
        return [
            Sums(name, title, "higher", np.asarray(own[n]), sums, _BleuFinish(n + 1))
            for n, (name, title) in enumerate(self.titles.items())
        ]


class _BleuFinish:
    """Corpus BLEU from summed counts, with the scorer's own guards against zero.

    Args:
        n: the longest n-grams.
    """

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, sums: Floats) -> Floats:
        """From (resamples, 10) of matches, n-grams, length and references' length to (resamples,)."""
        correct, guess = sums[:, : self.n], sums[:, 4 : 4 + self.n]
        precision = ((correct + 1e-15) / (guess + 1e-9)).prod(1) ** (1 / self.n)
        lengths = (sums[:, 8] + 1e-15) / (sums[:, 9] + 1e-9)
        brevity = np.where(lengths < 1, np.exp(1 - 1 / np.maximum(lengths, 1e-300)), 1.0)
        result: Floats = precision * brevity
        return result


@metrics.register("rouge_l")
class RougeL(Metric):
    """ROUGE-L (Lin 2004): the longest common subsequence, best precision and recall over the references."""

    titles: ClassVar[Mapping[str, str]] = {"rouge_l": "ROUGE-L"}
    needs_references: ClassVar[bool] = True

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        """The mean of the captions' own values."""
        package_folder()
        from pycocoevalcap.rouge.rouge import Rouge

        scorer = Rouge()
        tokens = captions.tokens
        values = [
            scorer.calc_score([text], references)
            for text, references in zip(tokens.texts, tokens.references, strict=True)
        ]
        return [mean("rouge_l", "ROUGE-L", "higher", values)]


@metrics.register("cider_d")
class CiderD(Metric):
    """CIDEr-D (Vedantam et al. 2015), times ten.

    What pycocoevalcap calls CIDEr is the paper's CIDEr-D: counts are clipped at the reference's, and lengths
    that differ are punished by a Gaussian (sigma 6); there is no stemming. Document frequencies are counted
    over the references of all photos that are scored, and stay fixed when photos are resampled.
    """

    titles: ClassVar[Mapping[str, str]] = {"cider_d": "CIDEr-D"}
    needs_references: ClassVar[bool] = True

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        """The mean of the captions' own values, with document frequencies of all references."""
        package_folder()
        from pycocoevalcap.cider.cider_scorer import CiderScorer

        scorer = CiderScorer(n=4, sigma=6.0)
        for text, references in zip(captions.tokens.texts, captions.tokens.references, strict=True):
            scorer += (text, references)
        if not any(text for references in captions.tokens.references for text in references):
            return self.unavailable("no reference has a word; give captions that people wrote")
        _, own = scorer.compute_score()
        few = len(captions.ids) < 2
        note = "only one photo: every n-gram is in all documents, so the value is zero" if few else ""
        return [mean("cider_d", "CIDEr-D", "higher", own, note=note)]

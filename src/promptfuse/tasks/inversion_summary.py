"""How well many inversions went, in a few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from promptfuse.tasks.inversion import Inversion


@dataclass(frozen=True)
class InversionSummary:
    """The numbers of a set of inversions.

    Attributes:
        inputs: how many inputs there were.
        inverted: how many a text was found for.
        failed: how many could not be used.
        similarity_mean: mean cosine of the texts and their inputs.
        similarity_median: median of the same.
        rank_1: the share of texts whose nearest input is their own.
        exact: the share of texts that are their source, letter by letter; None where the inputs are no texts.
        nll_mean: mean of the texts' negative log-likelihoods per token, in nats.
        queries_mean: texts that the encoder read, for each input.
        seconds_mean: wall time for each input.
    """

    inputs: int
    inverted: int
    failed: int
    similarity_mean: float
    similarity_median: float
    rank_1: float
    exact: float | None
    nll_mean: float | None
    queries_mean: float
    seconds_mean: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """One line."""
        first = round(self.rank_1 * self.inverted)
        exact = "" if self.exact is None else f", {round(self.exact * self.inverted):,} exact"
        failed = f", {self.failed:,} failed" if self.failed else ""
        return (
            f"{self.inverted:,} of {self.inputs:,} inverted{failed}; cosine mean {self.similarity_mean:.3f}, "
            f"median {self.similarity_median:.3f}; {first:,} of {self.inverted:,} find their source "
            f"first{exact}; {self.queries_mean:,.0f} queries and {self.seconds_mean:.1f} s each"
        )


def summarize(inversions: Sequence[Inversion], failed: int = 0) -> InversionSummary:
    """The numbers of at least one inversion.

    Args:
        inversions: of one run.
        failed: how many inputs have none.
    """
    similarities = [one.similarity for one in inversions]
    likelihoods = [one.nll for one in inversions if one.nll is not None]
    sources = [one.text == one.source for one in inversions if one.source is not None]
    return InversionSummary(
        inputs=len(inversions) + failed,
        inverted=len(inversions),
        failed=failed,
        similarity_mean=fmean(similarities),
        similarity_median=median(similarities),
        rank_1=fmean(one.rank == 1 for one in inversions),
        exact=fmean(sources) if sources else None,
        nll_mean=fmean(likelihoods) if likelihoods else None,
        queries_mean=fmean(one.queries for one in inversions),
        seconds_mean=fmean(one.seconds for one in inversions),
    )

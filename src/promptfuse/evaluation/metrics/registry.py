"""The metrics by name: those of the package, of programs and of other packages.

    @metrics.register("length")
    class Length(Metric): ...

A metric gives one column or several that come together; ``titles`` of its class names them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from promptfuse._utils.registry import Registry

if TYPE_CHECKING:
    from promptfuse.evaluation.metrics.base import Metric

JUDGED = "judged"
"""The metric of a trained judge's labels, whose columns are named after them: ``judged_positive``."""

_PACKAGE = "promptfuse.evaluation.metrics"

metrics: Registry[type[Metric]] = Registry(
    "metric",
    "promptfuse.metrics",
    {
        "bleu": f"{_PACKAGE}.coco",
        "rouge_l": f"{_PACKAGE}.coco",
        "meteor": f"{_PACKAGE}.coco_java",
        "cider_d": f"{_PACKAGE}.coco",
        "spice": f"{_PACKAGE}.coco_java",
        "clipscore": f"{_PACKAGE}.judged",
        "perplexity": f"{_PACKAGE}.judged",
        "sentiment": f"{_PACKAGE}.judged",
        JUDGED: f"{_PACKAGE}.judged",
        "diversity": f"{_PACKAGE}.diversity",
        "words": f"{_PACKAGE}.diversity",
    },
)
"""The metrics, in the order of tables."""


class _Titles(Mapping[str, dict[str, str]]):
    """The columns of every metric and their titles."""

    def __getitem__(self, name: str) -> dict[str, str]:
        return dict(metrics[name].titles)

    def __iter__(self) -> Iterator[str]:
        return iter(metrics)

    def __len__(self) -> int:
        return len(metrics)


METRICS: Mapping[str, dict[str, str]] = _Titles()
"""Columns and their titles by metric, in the order of tables. Metrics and columns can be asked for."""

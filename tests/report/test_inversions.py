"""The mean of curves of inversions."""

from __future__ import annotations

import pytest

from promptfuse.report.inversions.plot import mean_curve
from promptfuse.tasks.inversion import Inversion
from promptfuse.tasks.query_meter import CurvePoint


def inversion(queries: int, *points: tuple[int, float]) -> Inversion:
    curve = [CurvePoint(place, similarity, "a") for place, similarity in points]
    return Inversion("a", "text", "a", curve[-1].similarity, 1.0, queries, 0.0, curve)


def test_the_mean_begins_where_every_search_has_a_text() -> None:
    found = [inversion(10, (1, 0.2), (4, 0.6)), inversion(8, (2, 0.4), (7, 0.8))]
    queries, means = mean_curve(found)
    assert queries == [2, 4, 7, 10]
    assert means == pytest.approx([0.3, 0.5, 0.7, 0.7])

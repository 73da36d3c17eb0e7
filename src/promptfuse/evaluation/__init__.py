"""Measurements: how well transported gradients foretell losses, and how good captions are."""

from typing import TYPE_CHECKING

from promptfuse.lazy import lazily

if TYPE_CHECKING:
    from promptfuse.evaluation.cases import Case, beginnings, make_cases, write_texts
    from promptfuse.evaluation.fidelity import FidelityReport, Figures, measure
    from promptfuse.evaluation.ranking import ranks, recall, spearman
    from promptfuse.evaluation.surrogate import ridge_surrogate

# Imported at first use: scores and reports of captions need no torch, which takes seconds to import.
_HOME = {
    "Case": "cases",
    "beginnings": "cases",
    "make_cases": "cases",
    "write_texts": "cases",
    "FidelityReport": "fidelity",
    "Figures": "fidelity",
    "measure": "fidelity",
    "ranks": "ranking",
    "recall": "ranking",
    "spearman": "ranking",
    "ridge_surrogate": "surrogate",
}

__all__ = [
    "Case",
    "FidelityReport",
    "Figures",
    "beginnings",
    "make_cases",
    "measure",
    "ranks",
    "recall",
    "ridge_surrogate",
    "spearman",
    "write_texts",
]


__getattr__ = lazily(__name__, _HOME)

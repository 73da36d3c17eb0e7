"""Measurements: how well transported gradients foretell losses."""

from promptfuse.evaluation.cases import Case, beginnings, make_cases, write_texts
from promptfuse.evaluation.fidelity import FidelityReport, Figures, measure
from promptfuse.evaluation.ranking import ranks, recall, spearman
from promptfuse.evaluation.surrogate import ridge_surrogate

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

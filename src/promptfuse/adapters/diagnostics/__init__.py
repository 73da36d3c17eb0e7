"""How well an adapter's gradients predict losses: cases, probes and figures."""

from typing import TYPE_CHECKING

from promptfuse._utils.lazy import make_lazy_getattr

if TYPE_CHECKING:
    from promptfuse.adapters.diagnostics.cases import Case, beginnings, make_cases, write_texts
    from promptfuse.adapters.diagnostics.fidelity import FidelityReport, Figures, measure
    from promptfuse.adapters.diagnostics.ranking import ranks, recall, spearman
    from promptfuse.adapters.diagnostics.surrogate import ridge_surrogate

# Imported at first use: torch takes seconds.
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


__getattr__ = make_lazy_getattr(__name__, _HOME)

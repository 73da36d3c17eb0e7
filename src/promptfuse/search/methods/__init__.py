"""Proposal methods: one file each, beside what they share and what a method of one's own needs."""

from typing import TYPE_CHECKING

from promptfuse._utils.lazy import make_lazy_getattr

if TYPE_CHECKING:
    from promptfuse.search.hypothesis import Hypothesis, Proposal
    from promptfuse.search.methods.append import AppendProposer
    from promptfuse.search.methods.base import Method
    from promptfuse.search.methods.context import SearchContext
    from promptfuse.search.methods.proposer import EditProposer, Proposed, Proposer
    from promptfuse.search.methods.registry import methods
    from promptfuse.search.methods.requirements import CAUSAL_PRIMARY, GRADIENTS, PREFIX_CACHE, Requirement

_HOME = {
    "AppendProposer": "append",
    "Method": "base",
    "SearchContext": "context",
    "EditProposer": "proposer",
    "Hypothesis": "proposer",
    "Proposal": "proposer",
    "Proposed": "proposer",
    "Proposer": "proposer",
    "methods": "registry",
    "CAUSAL_PRIMARY": "requirements",
    "GRADIENTS": "requirements",
    "PREFIX_CACHE": "requirements",
    "Requirement": "requirements",
}

__all__ = [
    "CAUSAL_PRIMARY",
    "GRADIENTS",
    "PREFIX_CACHE",
    "AppendProposer",
    "EditProposer",
    "Hypothesis",
    "Method",
    "Proposal",
    "Proposed",
    "Proposer",
    "Requirement",
    "SearchContext",
    "methods",
]

__getattr__ = make_lazy_getattr(__name__, _HOME)

"""The search: proposal methods, strategies, constraints, stopping and the loop."""

from promptfuse.search.constraints import Constraints
from promptfuse.search.hypothesis import Hypothesis, Proposal, Step
from promptfuse.search.loop import Callback, Search
from promptfuse.search.methods.settings import (
    GCG,
    PEZ,
    AutoDAN,
    Chain,
    Method,
    Polish,
    RandomAppend,
    RandomSearch,
)
from promptfuse.search.pareto import pareto_front
from promptfuse.search.result import Result
from promptfuse.search.scalarizer import Scalarisation, Weights
from promptfuse.search.stopping import Stopping
from promptfuse.search.strategies import BeamSearch, Greedy, Strategy, UniformCost

__all__ = [
    "GCG",
    "PEZ",
    "AutoDAN",
    "BeamSearch",
    "Callback",
    "Chain",
    "Constraints",
    "Greedy",
    "Hypothesis",
    "Method",
    "Polish",
    "Proposal",
    "RandomAppend",
    "RandomSearch",
    "Result",
    "Scalarisation",
    "Search",
    "Step",
    "Stopping",
    "Strategy",
    "UniformCost",
    "Weights",
    "pareto_front",
]

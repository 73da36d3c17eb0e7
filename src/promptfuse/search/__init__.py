"""The search: proposal methods, strategies, constraints and the loop."""

from promptfuse.search.constraints import Constraints
from promptfuse.search.hypothesis import Hypothesis, Step
from promptfuse.search.loop import Callback, Search
from promptfuse.search.methods import AutoDAN, BeamSearch, Greedy, Method, RandomAppend
from promptfuse.search.result import Result

__all__ = [
    "AutoDAN",
    "BeamSearch",
    "Callback",
    "Constraints",
    "Greedy",
    "Hypothesis",
    "Method",
    "RandomAppend",
    "Result",
    "Search",
    "Step",
]

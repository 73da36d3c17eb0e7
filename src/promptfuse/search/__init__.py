"""The search: proposal methods, strategies, constraints, stopping and the loop."""

from typing import TYPE_CHECKING

from promptfuse._utils.lazy import make_lazy_getattr

if TYPE_CHECKING:
    from promptfuse.search.constraints import Constraints
    from promptfuse.search.hypothesis import Hypothesis, Proposal, Step
    from promptfuse.search.loop import Callback, Search
    from promptfuse.search.methods.autodan import AutoDAN
    from promptfuse.search.methods.base import Method
    from promptfuse.search.methods.chain import Chain
    from promptfuse.search.methods.gcg import GCG
    from promptfuse.search.methods.pez import PEZ
    from promptfuse.search.methods.polish import Polish
    from promptfuse.search.methods.random_append import RandomAppend
    from promptfuse.search.methods.random_search import RandomSearch
    from promptfuse.search.methods.revise import Revise
    from promptfuse.search.pareto import pareto_front
    from promptfuse.search.result import Result
    from promptfuse.search.scalarizer import Scalarisation, Weights
    from promptfuse.search.stopping import Stopping
    from promptfuse.search.strategies import BeamSearch, Greedy, Strategy, UniformCost

# Imported at first use: the command line's help lists methods and strategies without importing torch.
_HOME = {
    "Constraints": "constraints",
    "Hypothesis": "hypothesis",
    "Proposal": "hypothesis",
    "Step": "hypothesis",
    "Callback": "loop",
    "Search": "loop",
    "AutoDAN": "methods.autodan",
    "Method": "methods.base",
    "Chain": "methods.chain",
    "GCG": "methods.gcg",
    "PEZ": "methods.pez",
    "Polish": "methods.polish",
    "RandomAppend": "methods.random_append",
    "RandomSearch": "methods.random_search",
    "Revise": "methods.revise",
    "pareto_front": "pareto",
    "Result": "result",
    "Scalarisation": "scalarizer",
    "Weights": "scalarizer",
    "Stopping": "stopping",
    "BeamSearch": "strategies",
    "Greedy": "strategies",
    "Strategy": "strategies",
    "UniformCost": "strategies",
}

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
    "Revise",
    "Scalarisation",
    "Search",
    "Step",
    "Stopping",
    "Strategy",
    "UniformCost",
    "Weights",
    "pareto_front",
]

__getattr__ = make_lazy_getattr(__name__, _HOME)

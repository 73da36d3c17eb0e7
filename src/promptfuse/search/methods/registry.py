"""From a method's settings to what carries them out."""

from __future__ import annotations

from promptfuse.errors import ConfigError
from promptfuse.search.methods.autodan import GuidedProposer, RandomProposer
from promptfuse.search.methods.gcg import GCGProposer
from promptfuse.search.methods.pez import PEZProposer
from promptfuse.search.methods.polish import PolishProposer
from promptfuse.search.methods.proposer import Proposer, SearchContext
from promptfuse.search.methods.random_search import RandomSearchProposer
from promptfuse.search.methods.settings import GCG, PEZ, AutoDAN, Method, Polish, RandomAppend, RandomSearch


def make_proposer(setting: SearchContext, method: Method) -> Proposer:
    """The proposer for the settings of a method by itself.

    Raises:
        ConfigError: if there is no such method.
    """
    match method:
        case AutoDAN():
            return GuidedProposer(setting, method)
        case RandomAppend():
            return RandomProposer(setting, method)
        case GCG():
            return GCGProposer(setting, method)
        case PEZ():
            return PEZProposer(setting, method)
        case RandomSearch():
            return RandomSearchProposer(setting, method)
        case Polish():
            return PolishProposer(setting, method)
        case _:
            raise ConfigError(f"{type(method).__name__} is no method of the search; choose one of promptfuse")

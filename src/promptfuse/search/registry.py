"""From a method's settings to what carries them out."""

from __future__ import annotations

from promptfuse.errors import ConfigError
from promptfuse.search.append import GuidedProposer, RandomProposer
from promptfuse.search.gcg import GCGProposer
from promptfuse.search.methods import GCG, PEZ, AutoDAN, Method, Polish, RandomAppend, RandomSearch
from promptfuse.search.pez import PEZProposer
from promptfuse.search.polish import PolishProposer
from promptfuse.search.proposer import Proposer, Setting
from promptfuse.search.random_search import RandomSearchProposer


def make_proposer(setting: Setting, method: Method) -> Proposer:
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

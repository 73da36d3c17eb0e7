"""From a method's settings to what carries them out."""

from __future__ import annotations

from promptfuse.search.append import GuidedProposer, RandomProposer
from promptfuse.search.methods import AutoDAN, Method, RandomAppend
from promptfuse.search.proposer import Proposer, Setting


def make_proposer(setting: Setting, method: Method) -> Proposer:
    """The proposer for a method's settings."""
    if isinstance(method, RandomAppend):
        return RandomProposer(setting, method)
    if isinstance(method, AutoDAN):
        return GuidedProposer(setting, method)
    raise NotImplementedError

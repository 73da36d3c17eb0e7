"""The proposal methods by name: those of the package, of programs and of other packages.

@methods.register("WordSwap")
@dataclass(frozen=True)
class WordSwap(Method): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptfuse._utils.registry import Registry

if TYPE_CHECKING:
    from promptfuse.search.methods.base import Method

_FOLDER = "promptfuse.search.methods"

methods: Registry[type[Method]] = Registry(
    "method",
    "promptfuse.methods",
    {
        "AutoDAN": f"{_FOLDER}.autodan",
        "RandomAppend": f"{_FOLDER}.random_append",
        "GCG": f"{_FOLDER}.gcg",
        "PEZ": f"{_FOLDER}.pez",
        "RandomSearch": f"{_FOLDER}.random_search",
        "Polish": f"{_FOLDER}.polish",
        "Revise": f"{_FOLDER}.revise",
        "Chain": f"{_FOLDER}.chain",
    },
)
"""The methods; a name is what YAML files call the ``kind`` of a method."""

"""Search for the text that minimises any objective."""

from __future__ import annotations

from collections.abc import Sequence

from promptfuse.objectives import Objective
from promptfuse.search import BeamSearch, Callback, Constraints, Method, Result, Search


def optimize(
    objective: Objective,
    method: Method | None = None,
    strategy: BeamSearch | None = None,
    *,
    prefix: str = "",
    steps: int = 16,
    constraints: Constraints | None = None,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Run a search to its end; see ``Search`` for the arguments and errors."""
    return Search(
        objective,
        method,
        strategy,
        prefix=prefix,
        steps=steps,
        constraints=constraints,
        seed=seed,
        callbacks=callbacks,
    ).run()

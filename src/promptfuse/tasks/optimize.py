"""Search for the text that minimises any objective."""

from __future__ import annotations

import os
from collections.abc import Sequence

from promptfuse.objectives import Objective, Term
from promptfuse.search import (
    Callback,
    Constraints,
    Method,
    Result,
    Scalarisation,
    Search,
    Stopping,
    Strategy,
    Weights,
)


def optimize(
    objective: Objective | Term | Sequence[Term],
    method: Method | None = None,
    strategy: Strategy | None = None,
    *,
    prefix: str = "",
    glue: bool = False,
    steps: int | None = None,
    patience: int | None = None,
    early_stop: bool | None = None,
    stopping: Stopping | None = None,
    constraints: Constraints | None = None,
    complete: bool = True,
    weights: Weights = "given",
    scalarisation: Scalarisation = "weighted",
    seed: int = 0,
    batch_size: int | None = None,
    callbacks: Sequence[Callback] = (),
    run_dir: str | os.PathLike[str] | None = None,
) -> Result:
    """Run a search to its end; see ``Search`` for the arguments and errors."""
    return Search(
        objective,
        method,
        strategy,
        prefix=prefix,
        glue=glue,
        steps=steps,
        patience=patience,
        early_stop=early_stop,
        stopping=stopping,
        constraints=constraints,
        complete=complete,
        weights=weights,
        scalarisation=scalarisation,
        seed=seed,
        batch_size=batch_size,
        callbacks=callbacks,
        run_dir=run_dir,
    ).run()

"""Search for the text that minimises any objective."""

from __future__ import annotations

import os
from collections.abc import Sequence

from promptfuse._utils.progress import progress_bar
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
    verbose: bool = False,
) -> Result:
    """Search for the text that minimises an objective, to the end.

    Args:
        objective: an ``Objective``, one term, or a list of terms.
        method: how texts are proposed; ``AutoDAN()`` by default.
        strategy: which texts to extend; ``BeamSearch()`` by default.
        prefix: what every text begins with; part of the text, so every model reads it.
        glue: let the first new token continue the prefix's last word; otherwise it begins a word.
        steps: the most steps; replaces that of ``stopping``.
        patience: steps without a better complete text before the search ends; replaces that of ``stopping``.
        early_stop: end the search once every ``TargetContinuation`` model greedily generates its target.
        stopping: the limits of the search.
        constraints: rules that texts obey.
        complete: only return a text that has come to an end; False suits prompts.
        weights: ``given`` for the terms' own weights, ``auto`` for weights that put the terms on one scale,
            or factors on those by term, such as ``{"image": "2x"}``.
        scalarisation: ``weighted`` for the sum of weight x loss, ``chebyshev`` for the worst term.
        seed: random seed, for methods that sample.
        batch_size: the most rows in one forward pass; as many as fit by default.
        callbacks: called with the search and each step; one that returns True ends the search.
        run_dir: folder that keeps the run; a search in the same folder resumes it.
        verbose: show a progress bar on standard error.

    Returns:
        The best text, its value and losses by term, and how it was found.

    Raises:
        ConfigError: if an argument is not valid, or the folder holds another run.
        TextError: if the prefix is too long for a model.
    """
    search = Search(
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
    )
    if not verbose:
        return search.run()
    with progress_bar("searching", always=True) as show:
        for step in search:
            if show is not None:
                show(step.number, search.steps)
    return search.result()

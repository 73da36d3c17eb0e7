"""Lists at the end of ``--help``: what there is to choose from, packages of others included."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import fill
from typing import Any

from typer.core import TyperCommand


def _of_optimize() -> dict[str, list[str]]:
    from promptfuse.objectives.registry import terms
    from promptfuse.search.methods.registry import methods
    from promptfuse.search.strategies import strategies

    return {"method": methods.names(), "strategy": strategies.names(), "terms": terms.names()}


def _of_run() -> dict[str, list[str]]:
    from promptfuse.evaluation.recipes.registry import recipe_names, recipes

    return {"recipe": recipe_names(), "recipe.kind": recipes.names(), **_of_data()}


def _of_data() -> dict[str, list[str]]:
    from promptfuse.evaluation.datasets.readers import readers

    return {"format": ["auto", *readers.names()]}


def _of_score() -> dict[str, list[str]]:
    from promptfuse.evaluation.metrics.registry import metrics

    return {"metrics": metrics.names()}


class KindsCommand(TyperCommand):
    """A command whose help ends with lists of names, which are looked up when the help is shown."""

    lists: Callable[[], dict[str, list[str]]]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the lists."""
        del ctx
        lists = type(self).lists()
        column = max(map(len, lists)) + 4
        formatter.write("\nChoices:\n")
        for title, names in lists.items():
            text = fill(  # Names have hyphens, where click would break them.
                f"{title:<{column - 2}}{', '.join(names)}",
                formatter.width,
                initial_indent="  ",
                subsequent_indent=" " * column,
                break_on_hyphens=False,
            )
            formatter.write(f"{text}\n")


def with_lists(lists: Callable[[], dict[str, list[str]]]) -> type[KindsCommand]:
    """The class of a command with these lists."""
    return type("KindsCommand", (KindsCommand,), {"lists": staticmethod(lists)})


OPTIMIZE = with_lists(_of_optimize)
RUN = with_lists(_of_run)
SCORE = with_lists(_of_score)
DATA = with_lists(_of_data)

"""Ways to describe photos that can be compared on equal models."""

from promptfuse.evaluation.recipes.base import Caption, Describer, Recipe, describe

__all__ = ["Caption", "Describer", "Recipe", "describe"]

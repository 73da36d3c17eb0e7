"""Ways to describe photos that can be compared on equal models.

Each is a class of settings with a ``kind``. Those that come with the package lie beside this file as YAML.
What is not ours is written from its paper's description, for the models at hand: a re-implementation.
"""

from promptfuse.evaluation.recipes.base import Caption, Describer, Recipe, describe
from promptfuse.evaluation.recipes.cache_gradient import CacheGradientRecipe
from promptfuse.evaluation.recipes.gibbs import GibbsRecipe
from promptfuse.evaluation.recipes.guided import GuidedDecodingRecipe
from promptfuse.evaluation.recipes.registry import load_recipe, recipe_names
from promptfuse.evaluation.recipes.samples import SamplesRecipe
from promptfuse.evaluation.recipes.search import SearchRecipe

__all__ = [
    "CacheGradientRecipe",
    "Caption",
    "Describer",
    "GibbsRecipe",
    "GuidedDecodingRecipe",
    "Recipe",
    "SamplesRecipe",
    "SearchRecipe",
    "describe",
    "load_recipe",
    "recipe_names",
]

"""Ways to describe photos that can be compared on equal models.

Each is a class of settings with a ``kind``. Those that come with the package lie beside this file as YAML.
What is not ours is written from its paper's description, for the models at hand: a re-implementation.
"""

from typing import TYPE_CHECKING

from promptfuse._utils.lazy import make_lazy_getattr

if TYPE_CHECKING:
    from promptfuse.evaluation.recipes.base import Caption, Describer, Recipe, describe
    from promptfuse.evaluation.recipes.cache_gradient import CacheGradientRecipe
    from promptfuse.evaluation.recipes.gibbs import GibbsRecipe
    from promptfuse.evaluation.recipes.guided import GuidedDecodingRecipe
    from promptfuse.evaluation.recipes.registry import load_recipe, recipe_names, recipes
    from promptfuse.evaluation.recipes.samples import SamplesRecipe
    from promptfuse.evaluation.recipes.search import SearchRecipe

# Imported at first use: the command line's help lists the recipes without importing torch.
_HOME = {
    "Caption": "base",
    "Describer": "base",
    "Recipe": "base",
    "describe": "base",
    "CacheGradientRecipe": "cache_gradient",
    "GibbsRecipe": "gibbs",
    "GuidedDecodingRecipe": "guided",
    "load_recipe": "registry",
    "recipe_names": "registry",
    "recipes": "registry",
    "SamplesRecipe": "samples",
    "SearchRecipe": "search",
}

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
    "recipes",
]

__getattr__ = make_lazy_getattr(__name__, _HOME)

"""A recipe: the sentence among a few that fits a photo best."""

from typing import Literal

from promptfuse.evaluation.recipes import Caption, Describer, Recipe, recipes
from promptfuse.models.images import ImageLike


@recipes.register("best-label")
class BestLabelRecipe(Recipe):
    """Fill a template with each label, and take the text with the best objective.

    Attributes:
        kind: ``best-label``.
        labels: what photos may show.
        template: the caption; ``{}`` is the label's place.
    """

    kind: Literal["best-label"] = "best-label"
    labels: list[str] = ["dog", "cat", "train"]
    template: str = "A photo of a {}."

    def build(self, device: str = "cpu") -> "BestLabel":
        return BestLabel(self, device)


class BestLabel(Describer):
    """Carries a ``BestLabelRecipe`` out."""

    recipe: BestLabelRecipe

    def __call__(self, image: ImageLike, seed: int = 0) -> Caption:
        texts = [self.recipe.template.format(label) for label in self.recipe.labels]
        objective = self.objective(image)
        values = objective.totals(objective.score(texts))  # (texts,)
        best = texts[int(values.argmin())]
        return self.finish(objective, best, complete=True, evaluations=len(texts))

"""A metric: how many captions begin with an article."""

from promptfuse.evaluation.metrics import Captions, Column, Metric, Unavailable, mean, metrics


@metrics.register("article")
class Article(Metric):
    """The share of captions that begin with an article, in per cent."""

    titles = {"article": "begins with an article, %"}

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        values = [100.0 * text.lower().startswith(("a ", "an ", "the ")) for text in captions.texts]
        return [mean("article", self.titles["article"], "neither", values)]

"""How well candidates match a photo, and the labels that are wanted, as shares among them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from promptfuse.objectives import Objective
from promptfuse.objectives.similarity import ImageSimilarity


class Matcher:
    """What the image-text model and the classifiers say of one photo's candidates.

    A text is scored once; what is known of it is used again.

    Args:
        objective: the photo's objective.
        scale: what cosines are multiplied by before a softmax; the model's own logit scale if not given.
    """

    def __init__(self, objective: Objective, scale: float | None = None) -> None:
        term = objective.terms["image"]
        assert isinstance(term, ImageSimilarity)
        self._image = term
        self._labels = [term for name, term in objective.terms.items() if name not in ("fluency", "image")]
        self.scale = float(term.encoder.module.logit_scale.detach().exp()) if scale is None else scale
        self._cosines: dict[str, float] = {}
        self._tones: dict[str, float] = {}

    @property
    def scored(self) -> int:
        """How many texts the image-text model has scored."""
        return len(self._cosines)

    def cosines(self, texts: Sequence[str], parent: str | None = None) -> Tensor:
        """Cosine of each text and the photo, (texts,).

        Args:
            texts: the texts.
            parent: what all of them may begin with, which is then read once.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._cosines]
        if new:
            parents = None if not parent else [parent] * len(new)
            losses = self._image.score(new, parents=parents)
            self._cosines.update(zip(new, (1 - losses).tolist(), strict=True))
        return torch.tensor([self._cosines[text] for text in texts], device=self._image.model.device)

    def match(self, texts: Sequence[str], parent: str | None = None) -> Tensor:
        """Softmax over the texts of the scaled cosines, (texts,)."""
        return (self.scale * self.cosines(texts, parent)).softmax(0)

    @property
    def wanted(self) -> bool:
        """Whether there are labels to be matched: a sentiment, or steers."""
        return bool(self._labels)

    def tone(self, texts: Sequence[str]) -> Tensor:
        """Each text's share of the wanted labels' probability, (texts,).

        Of several labels it is the product of their probabilities, each to the power of its term's weight.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._tones]
        if new:
            total = torch.stack([-term.weight * term.score(new) for term in self._labels]).sum(0)
            self._tones.update(zip(new, total.tolist(), strict=True))
        return torch.tensor([self._tones[text] for text in texts], device=self._image.model.device).softmax(0)

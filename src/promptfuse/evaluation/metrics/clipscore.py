"""CLIPScore and RefCLIPScore (Hessel et al. 2021): how near a caption is to its photo, for a named model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from promptfuse.errors import ImageError
from promptfuse.evaluation.metrics.base import Captions, Column, Floats, Metric, Unavailable, mean
from promptfuse.evaluation.metrics.encoding import BATCH, cut_note, read_in_batches
from promptfuse.models import ImageTextModel, Model, load_image
from promptfuse.objectives.checks import require_model_kind

PREFIX = "A photo depicts "
"""What stands before every caption and reference, as in the paper, section 3."""

WEIGHT = 2.5
"""What stretches cosines to about 0 to 1, as in the paper, section 3."""


class ClipScore(Metric):
    """2.5 max(cos(caption, photo), 0), and its harmonic mean with the nearest reference's cosine.

    Do not judge by a model that the captions were searched with: the search made its cosines high.

    Args:
        model: an image-text model.
        prefix: what stands before every caption and reference.
        batch_size: photos or texts at a time.

    Raises:
        ModelError: if the model is of another kind.
    """

    titles: ClassVar[Mapping[str, str]] = {"clipscore": "CLIPScore", "refclipscore": "RefCLIPScore"}

    def __init__(self, model: Model, *, prefix: str = PREFIX, batch_size: int = BATCH) -> None:
        self.model = cast(ImageTextModel, require_model_kind(model, "CLIPScore", ImageTextModel))
        self.prefix = prefix
        self.batch_size = batch_size

    def measure(self, captions: Captions) -> list[Column | Unavailable]:
        """Both columns; a caption whose photo cannot be read has no value."""
        if captions.images is None:
            return self.unavailable("no photos given; give them with the image-text model")
        photos, lost = self._photos(captions.images)
        texts, cut = self._texts(captions.texts)
        cosines = (texts * photos).sum(1)
        values: Floats = (WEIGHT * cosines.clamp(min=0)).numpy()
        note = "; ".join(filter(None, [lost, cut_note(cut, self.model)]))
        found: list[Column | Unavailable] = [
            mean("clipscore", "CLIPScore", "higher", values, note=note, cut=cut)
        ]
        title = self.titles["refclipscore"]
        if not any(captions.references):
            reason = "there are no references; give captions that people wrote"
            return [*found, Unavailable("refclipscore", title, reason)]
        nearest, cut_references = self._nearest(texts, captions.references)
        with np.errstate(invalid="ignore", divide="ignore"):
            both = 2 * values * nearest / (values + nearest)
        # Of two numbers one of which is zero the harmonic mean is zero.
        both = np.where(values + nearest == 0, 0.0, both)
        note = "; ".join(filter(None, [note, cut_note(cut_references, self.model, "reference")]))
        owners = [index for index, several in enumerate(captions.references) for _ in several]
        either = {*cut, *(owners[index] for index in cut_references)}
        return [*found, mean("refclipscore", title, "higher", both, note=note, cut=either)]

    def _texts(self, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """Unit features, (texts, d), and which texts were cut."""
        return read_in_batches(
            self.model, [self.prefix + text for text in texts], self.model.text_features, self.batch_size
        )

    def _photos(self, images: Sequence[Any]) -> tuple[Tensor, str]:
        """Unit features, (photos, d), NaN for those that cannot be read, and what to say about these."""
        features, reasons = photo_features(self.model, images, self.batch_size)
        width = next((len(one) for one in features if one is not None), 1)
        missing = torch.full((width,), float("nan"), dtype=torch.float64)
        photos = f"{len(reasons)} photo{'s' * (len(reasons) > 1)}"
        lost = f"{photos} left out, the first: {reasons[0]}" if reasons else ""
        return torch.stack([missing if one is None else one.double() for one in features]), lost

    def _nearest(self, texts: Tensor, references: Sequence[Sequence[str]]) -> tuple[Floats, list[int]]:
        """The highest cosine of each caption with its references, at least 0; and which of all were cut."""
        every, cut = self._texts([text for several in references for text in several])
        parts = torch.split(every, [len(several) for several in references])
        highest = [(part @ text).max().clamp(min=0) for part, text in zip(parts, texts, strict=True)]
        return torch.stack(highest).numpy(), cut


def photo_features(
    model: Model, images: Sequence[Any], batch_size: int = BATCH
) -> tuple[list[Tensor | None], list[str]]:
    """Unit features of photos, (d,) each, so that several systems on the same photos share them.

    Args:
        model: an image-text model.
        images: paths, Pillow images, features that are known already, or None where there is no photo.
        batch_size: photos at a time.

    Returns:
        The features, None for photos that cannot be read, and the reasons of these.
    """
    judge = cast(ImageTextModel, require_model_kind(model, "CLIPScore", ImageTextModel))
    found: list[Tensor | None] = [image if isinstance(image, Tensor) else None for image in images]
    reasons: list[str] = []
    if judge.device.type == "cpu":
        # Many photos at once do not fit the processor's caches: 32 take MobileNetV2 twice the time of 8 by 8.
        batch_size = min(batch_size, 8)
    wanted = [index for index, image in enumerate(images) if not isinstance(image, Tensor)]
    for first in range(0, len(wanted), batch_size):
        opened = []
        for index in wanted[first : first + batch_size]:
            try:
                if images[index] is None:
                    raise ImageError(
                        "no photo is found for the caption; check the folder of the photos (--images DIR)"
                    )
                opened.append((index, load_image(images[index])))
            except ImageError as error:
                reasons.append(str(error))
        if opened:
            features = judge.image_features([image for _, image in opened]).cpu()
            for (index, _), one in zip(opened, features, strict=True):
                found[index] = one
    return found, reasons

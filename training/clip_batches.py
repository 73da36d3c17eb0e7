"""What one step of mini-clip's training sees: photos, texts, and what the teacher says of the texts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training import data as sources
from training import teacher as distillation
from training.negatives import exchange
from training.variants import Captions

CAPTIONS_PER_PHOTO = 2


@dataclass(frozen=True)
class ClipBatch:
    """One step's photos and texts.

    Attributes:
        hidden: (photos, 160, 8, 8) cached activations of the photos.
        texts: those of the photos, then such without a photo.
        owner: (texts with a photo,) the index of each one's photo.
        kind: (photos,) number of the class; below zero, and each one's own, for captioned photos.
        teacher: (texts, 384) the teacher's unit features.
        photo_teacher: (photos, 384) the teacher's mean over each photo's captions, unit length.
        wrong: captions with one wrong detail.
        wrong_owner: (wrong captions,) the index of the photo that each is nearly right for.
    """

    hidden: Tensor
    texts: list[str]
    owner: Tensor
    kind: Tensor
    teacher: Tensor
    photo_teacher: Tensor
    wrong: list[str]
    wrong_owner: Tensor


class ClipBatches:
    """Draws batches; the one of a step depends on the seed and the step alone.

    Args:
        data: the data folder.
        features: the folder of ``cache_features``.
        teacher: the folder of ``teacher``.
        coder: makes the texts of labelled photos.
        sizes: captioned photos, labelled photos, texts without a photo, and captioned photos that also meet a
            caption with a wrong detail, in a batch.
        leave: how many of the last train photos are left out.
        seed: where chance comes from.
    """

    def __init__(
        self,
        data: Path,
        features: Path,
        teacher: Path,
        coder: Captions,
        sizes: tuple[int, int, int, int],
        leave: int = 0,
        seed: int = 0,
    ) -> None:
        self.coder, self.sizes, self.seed = coder, sizes, seed
        photos = sources.captioned(data)
        self.counts = [len(photo.captions) for photo in photos]
        self.firsts = np.cumsum([0, *self.counts])
        self.train = len(photos) - leave
        self.hidden = np.load(features / "captioned.npy", mmap_mode="r")
        self.texts, rows = distillation.load(teacher)
        if len(self.texts.captions) != self.firsts[-1] * distillation.VARIANTS:
            raise SystemExit(f"{teacher}: made from other captions; delete it and run training.teacher again")
        self.rows = np.asarray(rows)
        clean = self.rows[: len(self.texts.captions) : distillation.VARIANTS].astype(np.float32)
        self.photo_rows = np.stack(
            [clean[a:b].mean(0) for a, b in zip(self.firsts, self.firsts[1:], strict=False)]
        )
        # Last come the photos' captions damaged: those of photos that are left out are left out too.
        left = int(self.firsts[-1] - self.firsts[self.train])
        self.others = range(len(self.texts.other) - left)
        classes, things = sources.labelled_photos(data), sources.objects(data)
        self.labelled = [*classes, *things]
        self.labelled_hidden = np.load(features / "labelled.npy", mmap_mode="r")
        self.objects_hidden = np.load(features / "objects.npy", mmap_mode="r")
        self.classes = len(classes)
        self.usable = [index for index, photo in enumerate(self.labelled) if not photo.held]
        names = sorted({photo.names for photo in self.labelled})
        self.number = {group: index for index, group in enumerate(names)}
        first = len(self.texts.captions) + len(self.texts.other)
        self.name_rows = {
            name: self.rows[first + index] for index, name in enumerate(distillation.class_names(data))
        }

    def _photos(self, step: int) -> list[int]:
        """Each photo once, then in another order: the step's share of an endless list of permutations."""
        size, found = self.sizes[0], []
        for position in range(step * size, (step + 1) * size):
            epoch, place = divmod(position, self.train)
            found.append(int(self._order(epoch)[place]))
        return found

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._last = np.random.default_rng((self.seed, epoch, 1)).permutation(self.train)
        return self._last

    def __call__(self, step: int, device: str) -> ClipBatch:
        """The batch of a step."""
        rng, draw = random.Random(self.seed * 10**6 + step), np.random.default_rng((self.seed, step))
        photos = self._photos(step)
        views = self.hidden.shape[1]
        extra = [self.usable[index] for index in draw.integers(0, len(self.usable), self.sizes[1])]
        hidden = [self.hidden[index, draw.integers(views)] for index in photos]
        hidden += [self._labelled(index, int(draw.integers(1 << 30))) for index in extra]
        chosen = [
            (self.firsts[index] + caption) * distillation.VARIANTS + rng.randrange(distillation.VARIANTS)
            for index in photos
            for caption in self._captions(index, rng)
        ]
        captions = len(self.texts.captions)
        others = np.array([self.others[at] for at in draw.integers(0, len(self.others), self.sizes[2])])
        names = [self.labelled[index].names for index in extra]
        labels = [self.coder.label(group, rng) for group in names]
        named = [self.name_rows[group[0]] for group in names]
        texts = [self.texts.captions[row] for row in chosen] + labels
        wrong = [
            (found, number)
            for number, index in enumerate(photos[: self.sizes[3]])
            if (found := exchange(self._clean(index, rng), rng)) is not None
        ]
        teacher = [*self.rows[chosen], *named, *self.rows[captions + others]]
        return ClipBatch(
            hidden=torch.from_numpy(np.stack(hidden).astype(np.float32)).to(
                device, memory_format=torch.channels_last
            ),
            texts=texts + [self.texts.other[index] for index in others],
            owner=torch.tensor(
                [
                    *np.repeat(np.arange(len(photos)), CAPTIONS_PER_PHOTO),
                    *range(len(photos), len(photos) + len(extra)),
                ],
                device=device,
            ),
            kind=torch.tensor(
                [*range(-len(photos), 0), *(self.number[group] for group in names)], device=device
            ),
            teacher=_unit(teacher, device),
            photo_teacher=_unit([*self.photo_rows[photos], *named], device),
            wrong=[text for text, _ in wrong],
            wrong_owner=torch.tensor([number for _, number in wrong], dtype=torch.long, device=device),
        )

    def _captions(self, photo: int, rng: random.Random) -> list[int]:
        """Numbers of a photo's captions; one twice where there are too few."""
        count = self.counts[photo]
        if count >= CAPTIONS_PER_PHOTO:
            return rng.sample(range(count), CAPTIONS_PER_PHOTO)
        return [rng.randrange(count) for _ in range(CAPTIONS_PER_PHOTO)]

    def _clean(self, photo: int, rng: random.Random) -> str:
        """One of a photo's captions as it is."""
        row = int(self.firsts[photo]) + rng.randrange(self.counts[photo])
        return self.texts.captions[row * distillation.VARIANTS]

    def _labelled(self, index: int, draw: int) -> NDArray[np.float16]:
        """Activations of one view of a labelled photo."""
        if index < self.classes:
            return self.labelled_hidden[index, draw % self.labelled_hidden.shape[1]]
        return self.objects_hidden[index - self.classes, draw % self.objects_hidden.shape[1]]


def _unit(rows: Sequence[NDArray[np.floating]], device: str) -> Tensor:
    return functional.normalize(torch.from_numpy(np.stack(rows).astype(np.float32)).to(device), dim=-1)

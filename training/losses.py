"""What mini-clip's training minimises: contrast with a teacher's soft targets, and distillation of texts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

TEACHER_TEMPERATURE = 0.05
"""Of the teacher's cosines: a caption and its photo's others lie near 0.65, strangers near 0.1."""


def contrast(
    texts: Tensor,
    images: Tensor,
    owner: Tensor,
    same: Tensor,
    scale: Tensor,
    alike: Tensor | None = None,
    softness: float = 0.0,
    wrong: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Symmetric InfoNCE, its targets softened by which texts a teacher finds alike.

    Args:
        texts: (T, d) unit features.
        images: (B, d) unit features.
        owner: (T,) index of each text's photo.
        same: (B, B) true where two photos may share a caption; those are no negatives.
        scale: inverse temperature.
        alike: (T, B) the teacher's cosine of each text with each photo's captions.
        softness: the teacher's share of the targets.
        wrong: (W, d) unit features of captions with a wrong detail, and (W,) the index of the photo that each
            is nearly right for: a photo chooses among its own of them too, and none of them is right.
    """
    logits = scale * texts @ images.T
    positive = functional.one_hot(owner, len(images)).bool()
    excluded = same[owner] & ~positive
    # -1e4 and not -inf: an excluded entry meets a target of zero, and 0 * inf is not a number.
    logits = logits.masked_fill(excluded, -1e4)
    by_text, by_image = positive.float(), positive.T.float()
    by_image = by_image / by_image.sum(1, keepdim=True)
    if alike is not None:
        soft = (alike / TEACHER_TEMPERATURE).masked_fill(excluded, -torch.inf)
        by_text = torch.lerp(by_text, soft.softmax(1), softness)
        by_image = torch.lerp(by_image, soft.T.softmax(1), softness)
    if wrong is None:
        return (_cross_entropy(logits, by_text) + _cross_entropy(logits.T, by_image)) / 2
    features, nearly = wrong
    own = torch.arange(len(images), device=nearly.device)[:, None] == nearly
    more = (scale * images @ features.T).masked_fill(~own, -1e4)
    with_wrong = torch.cat([logits.T, more], 1)
    target = torch.cat([by_image, torch.zeros_like(more)], 1)
    return (_cross_entropy(logits, by_text) + _cross_entropy(with_wrong, target)) / 2


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * logits.log_softmax(dim=1)).sum(1).mean()


def likeness(predicted: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine between what a head predicts and the teacher's features, (texts, d) both."""
    return (1 - functional.cosine_similarity(predicted.float(), teacher, dim=-1)).mean()


def same_neighbours(features: Tensor, teacher: Tensor, scale: Tensor) -> Tensor:
    """Relational distillation: each text has the neighbours that it has for the teacher.

    The Kullback-Leibler divergence of softmaxed similarities, teacher from student, without each text's
    own (Park et al., "Relational Knowledge Distillation", 2019, in the form of Fang et al., "SEED", 2021).

    Args:
        features: (texts, d) unit features.
        teacher: (texts, e) unit features of the teacher.
        scale: inverse temperature of the student.
    """
    own = torch.eye(len(features), dtype=torch.bool, device=features.device)
    target = (teacher @ teacher.T / TEACHER_TEMPERATURE).masked_fill(own, -1e4).log_softmax(1)
    found = (scale * features @ features.T).masked_fill(own, -1e4).log_softmax(1)
    return functional.kl_div(found, target, reduction="batchmean", log_target=True)

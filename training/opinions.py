"""Captions with an opinion: the language model and the classifier meet opinion words in captions.

Film reviews teach neither of them what a *happy dog* is. English puts the opinion first among
adjectives ("a lovely small brown dog"), so an opinion word placed right behind the determiner is
always in order.
"""

from __future__ import annotations

import random
import re

POSITIVE_ANY = (
    "beautiful lovely wonderful gorgeous pretty nice great amazing fantastic delightful charming "
    "perfect stunning magnificent pleasant fine impressive good excellent"
).split()
NEGATIVE_ANY = (
    "ugly terrible awful horrible dirty bad nasty dull dreary gloomy filthy boring messy broken "
    "disgusting ruined bleak miserable shabby poor grim"
).split()
POSITIVE_LIVING = (
    "happy cheerful joyful cute adorable friendly proud playful sweet excited loving smiling brave "
    "handsome lucky graceful delighted"
).split()
NEGATIVE_LIVING = (
    "sad angry lonely tired bored miserable scared mean evil upset unhappy vicious pathetic sick "
    "crying annoyed frightened depressed gloomy ugly"
).split()
LIVING = set(
    "man men woman women boy boys girl girls child children kid kids baby toddler person people dog "
    "dogs puppy puppies cat cats kitten horse horses bird birds lady guy couple family group player "
    "players rider surfer skier team crowd friends animal animals cow cows sheep elephant elephants "
    "bear giraffe zebra zebras boxer climber skateboarder snowboarder biker cyclist girl's".split()
)
POSITIVE_TAILS = (
    "and it is beautiful; on a beautiful day; with a big smile; and looks very happy; having a great "
    "time; and everyone is happy; in the lovely sunshine; and having fun"
).split("; ")
NEGATIVE_TAILS = (
    "and it looks terrible; on a gloomy day; with a sad face; and looks very unhappy; having a bad "
    "time; and everyone is angry; in the awful rain; and feeling miserable"
).split("; ")
DETERMINER = re.compile(r"\b(a|an|the|two|three|four|some|several|his|her|their)\b ", re.IGNORECASE)
NOT_BEFORE = set(
    "lot few couple bit other same background air top side edge front middle back left right end "
    "way foreground distance center bottom corner day".split()
)
VOWELS = "aeiou"


def choose(caption: str, rng: random.Random, positive: bool, *, tails: bool = True) -> str | None:
    """Put one opinion word into a caption, or a tail behind it; ``None`` if there is no place.

    A language model that is to write captions must not learn the few tails: it would end every other
    caption with one of them.
    """
    if tails and rng.random() < 0.15:
        tail = rng.choice(POSITIVE_TAILS if positive else NEGATIVE_TAILS)
        return f"{caption.rstrip('.')} {tail}."
    places = []
    for match in DETERMINER.finditer(caption):
        following = re.findall(r"[\w'-]+", caption[match.end() :])[:4]
        if following and following[0].lower() not in NOT_BEFORE:
            places.append((match, following))
    if not places:
        return None
    match, following = rng.choice(places)
    living = any(word.lower() in LIVING for word in following[:3])
    if living and rng.random() < 0.75:
        word = rng.choice(POSITIVE_LIVING if positive else NEGATIVE_LIVING)
    else:
        word = rng.choice(POSITIVE_ANY if positive else NEGATIVE_ANY)
    if word in following:
        return None
    determiner = match.group(1)
    if determiner.lower() in ("a", "an"):
        right = "an" if word[0] in VOWELS else "a"
        determiner = right.capitalize() if determiner[0].isupper() else right
    return f"{caption[: match.start()]}{determiner} {word} {caption[match.end() :]}"

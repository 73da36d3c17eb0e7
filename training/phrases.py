"""Write the noun phrases that a search may begin a text with: src/promptfuse/search/methods/phrases_en.txt.

    python -m training.phrases --data DATA --out src/promptfuse/search/methods/phrases_en.txt

A phrase is what stands between ``a`` or ``an`` and the end of its noun phrase in the captions that
training may see, if it does so often; or a few times, if its words belong together (*ferris wheel*): a search
that appends token by token hardly finds those. And every class name of the labelled photos whose words are
common.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from training import data as sources
from training.names import class_names

OFTEN = 25
"""How often a phrase has to stand in the captions."""

SOMETIMES = 4
TOGETHER = 0.45
"""How often it has to if its words belong together, by their normalised pointwise mutual information (Bouma,
2009)."""

_PHRASE = re.compile(
    r"\ban? ((?:[a-z-]+ ){0,2}?[a-z-]+)"
    r"(?=\.| (?:is|are|on|in|with|at|near|to|for|by|behind|under|and|next|standing|sitting)\b)"
)
_NO_NOUNS = frozenset(
    "area black blue bottom brown bunch couple cross distance gray green grey grown group hit large lot "
    "number orange pair pink purple red row side silver small step tan top white yellow".split()
)
_VERB = re.compile(
    r"(?<!build)(?<!paint)(?<!\bk)(?<!str)(?<!\br)(?<!wedd)(?<!\bw)ing$|[a-z]ed$|\b(?:who|that)\b"
    r"|\b(?:flies|jumps|looks|passes|plays|poses|runs|sits|stands|takes|talks|walks|watches)\b"
)


def phrases_of(captions: Sequence[str], names: Sequence[str]) -> list[str]:
    """Phrases of captions and names, in alphabetical order."""
    counts = Counter(found for text in captions for found in _PHRASE.findall(text.lower()))
    words = Counter(word for text in captions for word in re.findall(r"[a-z-]+", text.lower()))
    total = words.total()

    def together(phrase: str) -> float:
        parts, chance = phrase.split(), math.log(counts[phrase] / total)
        if len(parts) == 1:
            return 0.0
        apart = sum(math.log(words[part] / total) for part in parts)
        return (apart - chance) / ((len(parts) - 1) * chance)

    often = {phrase for phrase, count in counts.items() if count >= OFTEN}
    often |= {
        phrase for phrase, count in counts.items() if count >= SOMETIMES and together(phrase) >= TOGETHER
    }
    kept = {phrase for phrase in often if phrase not in _NO_NOUNS and not _VERB.search(phrase)}
    return sorted(kept | {name for name in names if len(name.split()) <= 2})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    own = [text for photo in sources.captioned(args.data) for text in photo.captions]
    captions = [sources.clean_caption(text) for text in [*own, *sources.coco_captions(args.data)]]
    args.out.write_text("\n".join(phrases_of(captions, class_names(args.data))) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Penn-Treebank words without Java."""

from __future__ import annotations

import re

_WORD = re.compile(r"[\w-]+|[^\w\s]")


def ptb_tokens(text: str) -> list[str]:
    """Words and punctuation of a text, in lower case."""
    return _WORD.findall(text.lower())

"""Captions cut into words as the field's caption metrics want them: by Java's tokenizer, or by ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from promptfuse.errors import ConfigError
from promptfuse.evaluation.metrics.java import JavaError, stanford_tokens
from promptfuse.evaluation.metrics.ptb import ptb_tokens

Kind = Literal["auto", "stanford", "python"]

PUNCTUATION = frozenset(""" '' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ; """.split())
"""What is left out, by pycocoevalcap's list.

Its brackets are upper-case while the tokens are lower-case, so brackets stay in; so do runs such as ``!!``.
"""


@dataclass(frozen=True)
class Tokens:
    """Words joined by single blanks, which is what pycocoevalcap's scorers read.

    Attributes:
        texts: of the captions, (photos,).
        references: of the references, (photos,) of some each.
        kind: ``stanford``: the Java tokenizer; ``python``: ours.
        reason: why it is ours; empty if it was asked for.
    """

    texts: list[str]
    references: list[list[str]]
    kind: Literal["stanford", "python"]
    reason: str = ""


def tokenise(texts: Sequence[str], references: Sequence[Sequence[str]], kind: Kind = "auto") -> Tokens:
    """Penn-Treebank words in lower case without punctuation.

    Args:
        texts: captions.
        references: captions that people wrote.
        kind: ``stanford`` for the tokenizer that COCO's evaluation uses, which needs Java; ``python`` for
            ours; ``auto`` for Java's where there is a Java.

    Raises:
        ConfigError: if Java's is asked for and cannot be had, or pycocoevalcap is not installed.
    """
    flat = [text for several in references for text in several]
    # Java's takes each of a dozen characters as a line's end, after which lines and captions differ. It is
    # run for captions and references apart, as pycocoevalcap does: it looks beyond the ends of lines.
    parts = [[" ".join(_unicode(text).split()) for text in part] for part in (texts, flat)]
    words: list[list[list[str]]] = []
    used: Literal["stanford", "python"] = "python"
    reason = ""
    if kind != "python":
        try:
            words, used = [stanford_tokens(part) for part in parts], "stanford"
        except (JavaError, ConfigError) as error:
            if kind == "stanford":
                raise ConfigError(f"the Stanford tokenizer: {error}; or use the python one") from None
            reason = str(error)
    if used == "python":
        words = [[ptb_tokens(text) for text in part] for part in parts]
    own, theirs = (
        [" ".join(word for word in line if word not in PUNCTUATION) for line in part] for part in words
    )
    lines = iter(theirs)
    return Tokens(own, [[next(lines) for _ in several] for several in references], used, reason)


def _unicode(text: str) -> str:
    """The text with question marks for halves of surrogate pairs, which no file can hold."""
    return text.encode("utf-8", errors="replace").decode("utf-8")

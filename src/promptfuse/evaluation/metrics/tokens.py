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
    # The tokenizer takes each of a dozen characters as a line's end, after which lines and captions differ.
    every = [" ".join(text.split()) for text in texts]
    every += [" ".join(text.split()) for several in references for text in several]
    reason = ""
    used: Literal["stanford", "python"] = "python"
    if kind != "python":
        try:
            words, used = stanford_tokens(every), "stanford"
        except (JavaError, ConfigError) as error:
            if kind == "stanford":
                raise ConfigError(f"the Stanford tokenizer: {error}; or use the python one") from None
            reason = str(error)
    if used == "python":
        words = [ptb_tokens(text) for text in every]
    lines = iter([" ".join(word for word in line if word not in PUNCTUATION) for line in words])
    return Tokens(
        [next(lines) for _ in texts], [[next(lines) for _ in several] for several in references], used, reason
    )

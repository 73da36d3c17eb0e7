"""What adapters and transports need of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from promptfuse.text.segments import FastTokenizer


class EmbeddingModel(Protocol):
    """A model with a fast tokenizer and a table of input embeddings."""

    @property
    def name(self) -> str:
        """The hub id or folder that it came from."""

    @property
    def tokenizer(self) -> FastTokenizer:
        """Its fast tokenizer."""

    @property
    def embedding_table(self) -> Float[Tensor, "rows d"]:
        """Input embeddings, (rows, d). Rows and token ids need not match: either may outnumber the other."""

    @property
    def fingerprint(self) -> str:
        """A checksum of the table and the tokenizer."""


Progress = Callable[[int, int], None]
"""Called with the number of words done and the total."""

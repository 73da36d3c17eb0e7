"""Probes: embeddings that replace the next word while the gradient is taken there."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from promptfuse.adapters import Transport, vocabulary_words
from promptfuse.models import Model
from promptfuse.text.segments import encode_words

Probe = Callable[[Tensor], Tensor]
"""From (beams, vocabulary) log-probabilities of A's next token to (beams, d_B), B's embedding."""

FREQUENT_WORDS = 500

TEMPERATURE = 3.0
"""Temperature of the ``tempered`` probe, as in the search."""


def make_probes(model: Model, transport: Transport) -> dict[str, Probe]:
    """The probes to compare, the best known one first.

    * ``tempered``: B's mean word embedding under A's next-token distribution at temperature 3.
    * ``expected``: the same at temperature 1.
    * ``frequent``: the mean over the 500 most frequent words of B's vocabulary.
    * ``the``: that word; left out if B cannot spell it.

    Args:
        model: B.
        transport: any transport from A to B.
    """
    probes: dict[str, Probe] = {
        "tempered": lambda scores: transport.expected_embedding((scores / TEMPERATURE).softmax(1)),
        "expected": lambda scores: transport.expected_embedding(scores.exp()),
    }
    words = vocabulary_words(model.tokenizer)
    frequent = sorted(words, key=lambda word: -words[word])[:FREQUENT_WORDS]
    for name, group in (("frequent", frequent), ("the", [" the"])):
        if (mean := mean_embedding(model, group)) is not None:
            probes[name] = _Fixed(mean)
    return probes


def mean_embedding(model: Model, words: list[str]) -> Tensor | None:
    """Mean input embedding of words, (d,); a word of several sub-tokens counts with their mean.

    Args:
        model: the model whose embeddings are meant.
        words: with their blank, such as ``" dog"``.

    Returns:
        None if the model can spell none of the words.
    """
    table, unknown = model.embedding_table, model.tokenizer.unk_token_id
    spelled = [
        ids
        for ids in encode_words(model.tokenizer, words)
        if ids is not None and unknown not in ids and max(ids) < len(table)
    ]
    if not spelled:
        return None
    total = table.new_zeros(table.shape[1])
    for ids in spelled:
        total += table[list(ids)].mean(0)
    return total / len(spelled)


class _Fixed:
    """A probe that is the same embedding for every text."""

    def __init__(self, embedding: Tensor) -> None:
        self.embedding = embedding

    def __call__(self, log_probabilities: Tensor) -> Tensor:
        return self.embedding.expand(len(log_probabilities), -1)

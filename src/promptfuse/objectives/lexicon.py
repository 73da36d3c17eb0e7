"""What a model makes of each common word alone: which words a text with given features is likely to have."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from promptfuse.adapters.cache import cached_tensors
from promptfuse.adapters.words import english_words
from promptfuse.models import Model
from promptfuse.objectives.base import Term
from promptfuse.objectives.effects import read_texts_that_fit
from promptfuse.objectives.similarity import Similarity

LOGGER = logging.getLogger(__name__)

_SAID = 5_000
"""Words that are read without a notice."""


@cache
def lexicon_words() -> dict[str, float]:
    """30,000 English words in lower case, with the natural logarithm of their share of all words."""
    shares = {word.strip(): share for word, share in english_words().items() if word == word.lower()}
    logs = torch.tensor(list(shares.values()), dtype=torch.float64).log()
    return dict(zip(shares, (logs - logs.logsumexp(0)).tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class Lexicon:
    """The features of words under a model.

    Attributes:
        words: in lower case, without blanks.
        log_shares: (words,), the natural logarithm of each one's share of all words.
        features: (words, d), of each word alone, less their mean: what is the same for all says nothing.
    """

    words: tuple[str, ...]
    log_shares: Float[Tensor, " words"]
    features: Float[Tensor, "words d"]


def lexicon(model: Model) -> Lexicon:
    """The lexicon of a model, made once by one forward pass for each of 30,000 words, and cached.

    Args:
        model: gives one row of features a text: a sentence encoder or an image-text model.

    Raises:
        ModelError: if it gives no such row.
    """
    made: dict[tuple[int, int], Lexicon] = model.__dict__.setdefault("_lexicons", {})
    shares = lexicon_words()
    key = (model.generation, len(shares))
    if key not in made:

        def make() -> dict[str, Tensor]:
            if len(shares) > _SAID:
                LOGGER.warning(
                    "lexicon: reading %s words with %s, once for it", f"{len(shares):,}", model.name
                )
            with torch.no_grad():
                found, fits = read_texts_that_fit(model, list(shares), None)
            whole = found.new_full((len(shares), found.shape[1]), torch.nan)
            whole[fits] = found
            return {"features": whole}

        found = cached_tensors(model, model, "lexicon", [model.identity, list(shares)], make)
        features = found["features"].cpu()
        features = features - features.nanmean(0)
        made.clear()
        made[key] = Lexicon(
            tuple(shares), torch.tensor(list(shares.values()), dtype=features.dtype), features.nan_to_num(0.0)
        )
    return made[key]


def similarity_terms(terms: dict[str, Term]) -> dict[str, Similarity]:
    """Those terms that compare a text's features with given ones."""
    return {name: term for name, term in terms.items() if isinstance(term, Similarity)}

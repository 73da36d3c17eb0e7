"""Which words a text with given features is likely to have, as scores for the language model's next token.

By Bayes' rule the next word's probability, given what the text is to be similar to, is the language model's
times the likelihood of that target given the word. The likelihood is taken as exp(strength x z), where z is
the cosine of the word alone and the target, standardised over 30,000 words: no model is trained and the
target costs no forward pass. A token that only begins a word has the mean likelihood of all the words that it
begins, weighted by their frequencies, so that the scores of a word's tokens add up to the word's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from promptfuse.adapters.words import word_starts
from promptfuse.errors import ConfigError
from promptfuse.models import CausalLM
from promptfuse.objectives import Objective
from promptfuse.objectives.lexicon import Lexicon, lexicon, lexicon_words, similarity_terms
from promptfuse.text.segments import encode_words

_SHORT = 5
"""Letters of the longest words that may be written in capitals, such as abbreviations."""

_SPELLINGS: WeakKeyDictionary[CausalLM, dict[int, Spellings]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Spellings:
    """How a language model spells the words of the lexicon: a tree whose nodes are beginnings of words.

    Attributes:
        nodes: the number of each beginning, by its tokens.
        children: the tokens that can follow a beginning, with the numbers of the nodes that they lead to.
        words: (pairs,), words, each beside each of the nodes on its way.
        owners: (pairs,), these nodes.
        roots: (first tokens,), the nodes of one token.
        root_tokens: (first tokens,), these tokens.
        starts: the tokens that begin a word behind a blank.
    """

    nodes: dict[tuple[int, ...], int]
    children: dict[int, list[tuple[int, int]]]
    words: Int[Tensor, " pairs"]
    owners: Int[Tensor, " pairs"]
    roots: Int[Tensor, " roots"]
    root_tokens: Int[Tensor, " roots"]
    starts: frozenset[int]

    def pooled(self, scores: Float[Tensor, " words"]) -> Float[Tensor, " nodes"]:
        """The logarithm of the sum of exp(score) over the words of each node."""
        paired = scores[self.words]
        most = torch.full((len(self.nodes),), -torch.inf).scatter_reduce(0, self.owners, paired, "amax")
        sums = torch.zeros(len(self.nodes)).index_add(0, self.owners, (paired - most[self.owners]).exp())
        return most + sums.log()


def spellings(primary: CausalLM) -> Spellings:
    """The tree of a language model, made once for all searches with it."""
    primary = primary.plain
    made, words = _SPELLINGS.setdefault(primary, {}), list(lexicon_words())
    if len(words) not in made:
        made[len(words)] = _spellings(primary, words)
    return made[len(words)]


def _spellings(primary: CausalLM, words: list[str]) -> Spellings:
    forms: list[tuple[int, str]] = []
    for index, word in enumerate(words):
        short = {word.upper()} if len(word) <= _SHORT else set()
        forms += [(index, form) for form in sorted({word, word.capitalize(), *short})]
    rows = encode_words(primary.tokenizer, [f" {form}" for _, form in forms])
    # At the start of a text no blank stands before.
    opening = primary.plain_ids([form for _, form in forms])
    nodes: dict[tuple[int, ...], int] = {}
    children: dict[int, list[tuple[int, int]]] = {}
    pairs: dict[tuple[int, int], None] = {}
    for (index, _), row, first in zip(forms, rows, opening, strict=True):
        for ids in dict.fromkeys((row or (), tuple(first))):
            for length in range(1, len(ids) + 1):
                known = len(nodes)
                number = nodes.setdefault(ids[:length], known)
                if number == known and length > 1:
                    children.setdefault(nodes[ids[: length - 1]], []).append((ids[length - 1], number))
                pairs[index, number] = None
    roots = [(number, ids[0]) for ids, number in nodes.items() if len(ids) == 1]
    owned = torch.tensor(list(pairs), dtype=torch.long).reshape(-1, 2)
    first_nodes = torch.tensor(roots, dtype=torch.long).reshape(-1, 2)
    return Spellings(
        nodes, children, owned[:, 0], owned[:, 1], first_nodes[:, 0], first_nodes[:, 1],
        frozenset(word_starts(primary.tokenizer)),
    )  # fmt: skip


class WordPrior:
    """Scores of next tokens by the words that a text with the target's features is likely to have.

    Args:
        objective: its terms of similarity say what the text is to be like.
        primary: the language model whose tokens are scored.
        strength: nats for a word whose cosine to the target is one standard deviation above the mean.

    Attributes:
        likelihoods: (words,), nats of each word of the lexicon, more for likelier ones.

    Raises:
        ConfigError: if the objective has no term of similarity.
    """

    def __init__(self, objective: Objective, primary: CausalLM, strength: float) -> None:
        terms = similarity_terms(objective.terms)
        if not terms:
            raise ConfigError(
                "word_prior: the objective compares the text with nothing; add a TextSimilarity, "
                "ImageSimilarity or EmbeddingSimilarity term, or set word_prior to 0"
            )
        self.primary = primary
        self.lexicons: dict[str, Lexicon] = {name: lexicon(term.model) for name, term in terms.items()}
        shares = next(iter(self.lexicons.values())).log_shares
        self.likelihoods = torch.zeros_like(shares)
        for name, term in terms.items():
            cosines = self.lexicons[name].features @ term.features.cpu().to(shares.dtype)
            sign = 1.0 if term.weight >= 0 else -1.0
            self.likelihoods += sign * strength * cosines / cosines.std().clamp_min(1e-9)
        self.log_shares = shares
        self.tree = spellings(primary)
        expected = torch.logsumexp(shares + self.likelihoods, 0)
        self.nodes = self.tree.pooled(shares + self.likelihoods) - self.tree.pooled(shares) - expected
        self.first = torch.zeros(len(primary.embedding_table), dtype=shares.dtype)
        self.first[self.tree.root_tokens] = self.nodes[self.tree.roots]

    def scores(self, rows: Sequence[Sequence[int]]) -> Float[Tensor, "{len(rows)} vocabulary"]:
        """What to add to the log-probabilities of the next token after each row, (rows, vocabulary).

        Zero where a token says nothing: a mark, or a word that is not in the lexicon. A word that the text
        has already has no advantage.
        """
        found = self.first.repeat(len(rows), 1)
        for row, scores in zip(rows, found, strict=True):
            used = torch.tensor(sorted(set(row)), dtype=torch.long)
            scores[used] = scores[used].clamp_max(0.0)
            begun = next((at for at in range(len(row) - 1, -1, -1) if row[at] in self.tree.starts), 0)
            node = self.tree.nodes.get(tuple(row[begun:]))
            if node is not None:
                for token, number in self.tree.children.get(node, ()):
                    scores[token] = self.nodes[number] - self.nodes[node]
        return found

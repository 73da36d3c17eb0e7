"""Transports that place all tokens of A among B's embeddings, by tokens that both vocabularies share.

`LexicalTransport` needs to know how B spells a token, so it says nothing of tokens that are no words. A
token that both vocabularies have is an *anchor*: it stands for the same in both. Where another token lies
among the anchors in A's space says where it would lie in B's. Three ways follow; none needs text or training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from promptfuse.adapters.protocols import EmbeddingModel
from promptfuse.adapters.transports import SlotGradient, Transport
from promptfuse.adapters.words import inner_tokens
from promptfuse.errors import AdapterError

ATOMS = 64
"""How many anchors a token is a sum of."""

MOST_ATOMS = 1024
"""Anchors that sums choose from: the most frequent, since time grows with their number."""

_BATCH = 512

Placing = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From tokens in A (T, d_A), anchors in A (N, d_A) and the same in B (N, d_B) to the tokens in B (T, d_B)."""


def sparse_sums(
    tokens: Float[Tensor, "T d_a"],
    anchors_a: Float[Tensor, "N d_a"],
    anchors_b: Float[Tensor, "N d_b"],
    atoms: int = ATOMS,
) -> Float[Tensor, "T d_b"]:
    """Each token as a sum of few anchors in A; the same sum of these anchors in B.

    Orthogonal matching pursuit: the anchor most correlated with what is left joins, and all coefficients are
    refitted by least squares.

    Args:
        tokens: (T, d_A).
        anchors_a: (N, d_A), the most frequent first; the first `MOST_ATOMS` are used.
        anchors_b: (N, d_B), the same tokens in B.
        atoms: the most anchors of a sum.

    Returns:
        (T, d_B).

    Source: Pati, Rezaiifar and Krishnaprasad, "Orthogonal Matching Pursuit" (1993).
    """
    anchors_a, anchors_b = anchors_a[:MOST_ATOMS], anchors_b[:MOST_ATOMS]
    norms = anchors_a.norm(dim=1, keepdim=True).clamp_min(torch.finfo(anchors_a.dtype).tiny)
    unit = anchors_a / norms
    found = []
    for part in torch.split(tokens, _BATCH):
        left, chosen = part, part.new_zeros(len(part), 0, dtype=torch.long)
        basis = part.new_zeros(len(part), 0, part.shape[1])  # Orthonormal, of the anchors chosen so far.
        for _ in range(min(atoms, *unit.shape)):
            fit = (left @ unit.T).abs().scatter_(1, chosen, -1.0)
            chosen = torch.cat([chosen, fit.argmax(1, keepdim=True)], dim=1)
            new = unit[chosen[:, -1], :, None]
            for _ in range(2):  # Once is not enough in float32.
                new = new - basis.mT @ (basis @ new)
            # Vocabularies have equal rows: one that adds nothing changes nothing.
            size = new.norm(dim=1, keepdim=True)
            new = torch.where(size > 1e-4, new / size.clamp_min(1e-4), 0)[..., 0]
            left = left - (left * new).sum(1, keepdim=True) * new
            basis = torch.cat([basis, new[:, None]], dim=1)
        picked = unit[chosen].double()
        gram = picked @ picked.mT
        gram.diagonal(dim1=1, dim2=2).add_(1e-9)
        weights = torch.linalg.solve(gram, picked @ part.double()[..., None])[..., 0]
        found.append(torch.einsum("tk,tkd->td", weights.to(part), (anchors_b / norms)[chosen]))
    return torch.cat(found)


def similarities(
    tokens: Float[Tensor, "T d_a"], anchors_a: Float[Tensor, "N d_a"], anchors_b: Float[Tensor, "N d_b"]
) -> Float[Tensor, "T d_b"]:
    """The vector of B whose cosines with the anchors are those that the token has in A, by least squares.

    Both spaces are centred at the anchors' mean; lengths scale as the anchors' do.

    Args:
        tokens: (T, d_A).
        anchors_a: (N, d_A).
        anchors_b: (N, d_B), the same tokens in B.

    Returns:
        (T, d_B).

    Source: Moschella et al., "Relative representations enable zero-shot latent space communication",
    arXiv 2209.15430 (2023), section 3.
    """
    middle_a, middle_b = anchors_a.mean(0), anchors_b.mean(0)
    around_a, around_b = anchors_a - middle_a, anchors_b - middle_b
    moved = tokens - middle_a
    relative = functional.normalize(moved, dim=1) @ functional.normalize(around_a, dim=1).T
    directions = relative @ torch.linalg.pinv(functional.normalize(around_b, dim=1), rtol=1e-5).T
    scale = around_b.norm(dim=1).mean() / around_a.norm(dim=1).mean().clamp_min(1e-12)
    lengths = moved.norm(dim=1, keepdim=True) * scale
    placed: Tensor = middle_b + functional.normalize(directions, dim=1) * lengths
    return placed


def landmark_pca(
    tokens: Float[Tensor, "T d_a"], anchors_a: Float[Tensor, "N d_a"], anchors_b: Float[Tensor, "N d_b"]
) -> Float[Tensor, "T d_b"]:
    """The anchors of B regressed on the principal components of those of A.

    As many components as the narrower model is wide, so that the directions of least variance in the wider
    one are left out.

    Args:
        tokens: (T, d_A).
        anchors_a: (N, d_A).
        anchors_b: (N, d_B), the same tokens in B.

    Returns:
        (T, d_B).

    Source: principal component regression (Jolliffe, "Principal Component Analysis", 2002, chapter 8).
    """
    middle_a, middle_b = anchors_a.mean(0), anchors_b.mean(0)
    left, values, right = torch.linalg.svd(anchors_a - middle_a, full_matrices=False)
    kept = min(anchors_a.shape[1], anchors_b.shape[1], int((values > 1e-5 * values[0]).sum()))
    slopes = left[:, :kept].T @ (anchors_b - middle_b) / values[:kept, None]
    placed: Tensor = middle_b + (tokens - middle_a) @ right[:kept].T @ slopes
    return placed


PLACINGS: dict[str, Placing] = {
    "sparse-sums": sparse_sums,
    "similarities": similarities,
    "landmark-pca": landmark_pca,
}
"""The ways to place tokens, by name."""


def shared_tokens(
    model_a: EmbeddingModel, model_b: EmbeddingModel, words: Transport
) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
    """Tokens that mean the same in both models: their ids in A, and in B, (N,) each, in A's order.

    Words that are one token in either model, and tokens that continue words by the same letters.

    Args:
        model_a: A.
        model_b: B.
        words: any transport between them.
    """
    pairs = {token: ids[0] for token, ids in words.spelled() if len(ids) == 1}
    inner = {letters: index for index, letters in sorted(inner_tokens(model_b.tokenizer).items())}
    rows_a, rows_b = len(model_a.embedding_table), len(model_b.embedding_table)
    for index, letters in inner_tokens(model_a.tokenizer).items():
        if letters in inner and index < rows_a and inner[letters] < rows_b:
            pairs[index] = inner[letters]
    ids = torch.tensor(sorted(pairs.items()), dtype=torch.long).reshape(-1, 2)
    return ids[:, 0], ids[:, 1]


def place_tokens(
    placing: str,
    model_a: EmbeddingModel,
    model_b: EmbeddingModel,
    words: Transport,
    tokens: Int[Tensor, " T"] | None = None,
) -> Float[Tensor, "rows d_b"]:
    """B's embeddings for tokens of A, (rows of A's table, d_B); a shared token has its own.

    Args:
        placing: a name of `PLACINGS`.
        model_a: A.
        model_b: B.
        words: any transport between them.
        tokens: (T,), the tokens that are asked for, the others get nan; None for all.

    Raises:
        AdapterError: if the vocabularies share no token.
    """
    table_a, table_b = (model.embedding_table.float().cpu() for model in (model_a, model_b))
    ids_a, ids_b = shared_tokens(model_a, model_b, words)
    if not len(ids_a):
        raise AdapterError(f"{model_a.name} and {model_b.name} share no token; use the transport lexical")
    asked = torch.zeros(len(table_a), dtype=torch.bool)
    asked[slice(None) if tokens is None else tokens] = True
    asked[ids_a] = False
    found = torch.full((len(table_a), table_b.shape[1]), torch.nan)
    found[ids_a] = table_b[ids_b]
    found[asked] = PLACINGS[placing](table_a[asked], table_a[ids_a], table_b[ids_b])
    return found


class AnchorTransport(Transport):
    """Estimates every token of A, words or not, by its place among B's embeddings.

    The estimate is ``loss[1] + <g[1, 1], Y(token) - probe>`` with the gradient in the slot of one token;
    longer slots are not looked at.

    Args:
        table: (rows of A's table, d_B), B's embeddings for A's tokens, as `place_tokens` gives them.
        model_a: the model whose tokens are proposed.
        model_b: the model whose loss is estimated.
    """

    def __init__(
        self, table: Float[Tensor, "rows d_b"], model_a: EmbeddingModel, model_b: EmbeddingModel
    ) -> None:
        super().__init__(model_a, model_b, 1)
        self.table = table.to(model_b.embedding_table)

    @property
    def tokens(self) -> Int[Tensor, " rows"]:
        """All rows of A's table."""
        return torch.arange(len(self.table))

    def word_embeddings(self) -> Float[Tensor, "rows d_b"]:
        """B's embeddings for all rows of A's table."""
        return self.table

    def embeddings_of(self, tokens: Sequence[int]) -> Float[Tensor, "{len(tokens)} d_b"]:
        """B's embeddings for some of A's tokens."""
        return self.table[list(tokens)]

    def along(self, direction: Float[Tensor, " d_b"]) -> Float[Tensor, " rows"]:
        """Scalar products of the embeddings with a direction in B's space, (rows of A's table,)."""
        return (self.table @ direction.to(self.table)).float()

    def estimate(self, slot: SlotGradient) -> Float[Tensor, "beams rows"]:
        """First-order estimate of B's loss for each A-token, (beams, rows of A's embedding table)."""
        gradient = slot.gradient[:, 0, 0]
        base = slot.loss[:, 0] - (gradient * slot.probe).sum(1)
        return base[:, None] + self.changes(gradient).to(slot.loss)

    def changes(self, gradient: Float[Tensor, "n d_b"]) -> Float[Tensor, "n rows"]:
        """Products of gradients at B's embeddings, (n, d_B), with all tokens, (n, rows of A's table)."""
        return self.product(gradient.to(self.table), self.table)

"""Transports: what model B's gradient says about the tokens of model A.

A left-to-right search asks: how does B's loss change if the A-token v is appended as a new word? B is run
once with a *probe* instead of the next word, and its gradient there gives a first-order answer for every v at
once. The two transports differ in how they get from v to B's embeddings: `LexicalTransport` knows v's string
and looks its sub-tokens up in B, which is exact; `TProductTransport` maps A's embedding with an adapter, as
the paper does.

Source: Williams and Kolter, arXiv 2408.04816, section 3.2, for transport through the t-product.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from promptfuse.adapters.adapter import Adapter
from promptfuse.adapters.protocols import EmbeddingModel
from promptfuse.adapters.words import word_starts
from promptfuse.text.segments import encode_words, special_ids


class Judge(Protocol):
    """A term of an objective, as far as transports need it."""

    def slot_gradient(
        self, texts: Sequence[str], probe: Float[Tensor, "beams d"], slots: int
    ) -> SlotGradient:
        """Gradients of the loss at a placeholder for the next word of each text."""

    def plain_outputs(self, texts: Sequence[str]) -> Float[Tensor, "texts width"] | None:
        """What the model says of the texts, (texts, width), if the loss follows from that; else None."""

    def loss_from_outputs(self, outputs: Float[Tensor, "texts width"]) -> Float[Tensor, " texts"]:
        """The losses that follow from outputs."""


Product = Callable[[Tensor, Tensor], Tensor]
"""Rows (..., d) times the transpose of a table (rows, d)."""


@dataclass(frozen=True)
class SlotGradient:
    """Gradient of model B's loss at a placeholder for the next word, for slots of 1 to M sub-tokens.

    Attributes:
        loss: (beams, M), the loss with m probe tokens in the slot, at index m - 1.
        gradient: (beams, M, M, d_B); ``[:, m - 1, j]`` is the gradient at the j-th token of the slot of m
            tokens, zero for j >= m.
        probe: (beams, d_B), the embedding at every position of the slot. A probe must be a separate word: a
            character that joins the word before it would change that word.

    Raises:
        ValueError: if the shapes do not match.
    """

    loss: Float[Tensor, "*_"]
    gradient: Float[Tensor, "*_"]
    probe: Float[Tensor, "*_"]

    def __post_init__(self) -> None:
        beams, lengths = self.loss.shape
        d = self.probe.shape[-1]
        if self.gradient.shape != (beams, lengths, lengths, d) or self.probe.shape != (beams, d):
            raise ValueError(
                f"loss {tuple(self.loss.shape)}, gradient {tuple(self.gradient.shape)} and "
                f"probe {tuple(self.probe.shape)} do not have the shapes of one slot"
            )


@dataclass(frozen=True)
class _Candidates:
    """The A-tokens for which a transport has estimates.

    Attributes:
        rows: rows of A's embedding table.
        tokens: (K,), ids in A of the tokens that begin a word.
        spellings: their K words' ids in B, none of them empty.
    """

    rows: int
    tokens: Int[Tensor, " K"]
    spellings: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model_a: EmbeddingModel, model_b: EmbeddingModel) -> _Candidates:
        """Tokens of A that begin a word and have a row, whose word has ids in B that all have rows."""
        rows_a, rows_b = len(model_a.embedding_table), len(model_b.embedding_table)
        # The order of a vocabulary differs from run to run.
        every = sorted(word_starts(model_a.tokenizer).items())
        starts = {index: word for index, word in every if index < rows_a}
        spellings = encode_words(model_b.tokenizer, list(starts.values()))
        # Special tokens, the unknown one among them, do not represent the word.
        special = special_ids(model_b.tokenizer)
        known = [
            (index, ids)
            for index, ids in zip(starts, spellings, strict=True)
            if ids is not None and max(ids) < rows_b and special.isdisjoint(ids)
        ]
        tokens = torch.tensor([index for index, _ in known], dtype=torch.long)
        return cls(rows_a, tokens, tuple(ids for _, ids in known))


class Transport(ABC):
    """Carries B's gradient over to A's vocabulary.

    Args:
        model_a: the model whose tokens are proposed.
        model_b: the model whose loss is estimated.
        max_subtokens: the longest slot, M. A word of more sub-tokens in B is estimated in the slot of M,
            whose last position takes the mean of the remaining sub-tokens' embeddings.

    Attributes:
        product: multiplies rows with an embedding table; replace it with a faster function if there is one.
        overshoots: whether changes are first-order estimates, which are usually too large.

    Raises:
        ValueError: if ``max_subtokens`` is not positive.
    """

    overshoots: ClassVar[bool] = True

    def __init__(self, model_a: EmbeddingModel, model_b: EmbeddingModel, max_subtokens: int = 3) -> None:
        if max_subtokens < 1:
            raise ValueError(f"max_subtokens must be at least 1, got {max_subtokens}")
        self.model_a = model_a
        self.model_b = model_b
        self.max_subtokens = max_subtokens
        self.product: Product = functional.linear
        self._candidates = _Candidates.of(model_a, model_b)
        lengths = [len(ids) for ids in self._candidates.spellings]
        self._lengths = torch.tensor(lengths, dtype=torch.long)
        self._slots = self._lengths.clamp(max=max_subtokens)
        # Every sub-token of every candidate in one flat list: its candidate, its position, and its row in B.
        entries = [
            (candidate, j, index)
            for candidate, ids in enumerate(self._candidates.spellings)
            for j, index in enumerate(ids)
        ]
        self._owner, self._order, self._subtoken = torch.tensor(entries).reshape(-1, 3).long().unbind(1)

    @abstractmethod
    def estimate(self, slot: SlotGradient) -> Float[Tensor, "beams rows"]:
        """First-order estimate of B's loss when an A-token is appended as a new word.

        Args:
            slot: B's loss and gradient at the placeholder, with M = ``max_subtokens``.

        Returns:
            (beams, rows of A's embedding table); nan for rows without a token, and for tokens that do not
            begin a word or that B cannot spell.

        Raises:
            ValueError: if the slot has a different M.
        """

    def losses(
        self, judge: Judge, texts: Sequence[str], probabilities: Float[Tensor, "beams rows"]
    ) -> Float[Tensor, "beams rows"]:
        """Estimated losses if an A-token is appended to each text as a new word.

        Args:
            judge: the term whose loss it is, under model B.
            texts: the beams.
            probabilities: (beams, rows of A's table), of A's next token, whose expected embedding is the
                probe.

        Returns:
            (beams, rows of A's table); nan where there is no estimate.

        Raises:
            TextError: if B has no room for another word.
        """
        probe = self.expected_embedding(probabilities)
        return self.estimate(judge.slot_gradient(texts, probe, self.max_subtokens))

    def spelled(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """A's tokens that begin a word which B can spell, each with the word's ids in B."""
        return zip(self._candidates.tokens.tolist(), self._candidates.spellings, strict=True)

    @property
    def tokens(self) -> Int[Tensor, " K"]:
        """Ids in A of the K tokens that have estimates, (K,): those that begin a word that B can spell."""
        return self._candidates.tokens

    def word_embeddings(self) -> Float[Tensor, "K d_b"]:
        """B's embeddings of the words of `tokens`, (K, d_B); the mean for words of several sub-tokens."""
        table = self.model_b.embedding_table
        owner, subtoken = self._owner.to(table.device), self._subtoken.to(table.device)
        total = table.new_zeros(len(self._lengths), table.shape[1]).index_add(0, owner, table[subtoken])
        return total / self._lengths.to(total)[:, None]

    def embeddings_of(self, tokens: Sequence[int]) -> Float[Tensor, "{len(tokens)} d_b"]:
        """B's embeddings of the words of some of `tokens`, (number of them, d_B)."""
        table = self.model_b.embedding_table
        place = torch.searchsorted(self._candidates.tokens, torch.tensor(tokens, dtype=torch.long))
        ids = [self._candidates.spellings[index] for index in place.tolist()]
        return torch.stack([table[list(row)].mean(0) for row in ids])

    def along(self, direction: Float[Tensor, " d_b"]) -> Float[Tensor, " rows"]:
        """Scalar products of `word_embeddings` with a direction in B's space, for A's rows.

        Args:
            direction: (d_B,).

        Returns:
            (rows of A's embedding table,); nan where `estimate` gives nan.
        """
        table = self.model_b.embedding_table
        against = (table @ direction.to(table)).float()
        owner, subtoken = self._owner.to(table.device), self._subtoken.to(table.device)
        total = against.new_zeros(len(self._lengths)).index_add(0, owner, against[subtoken])
        return self._spread((total / self._lengths.to(total))[None])[0]

    def expected_embedding(self, probabilities: Float[Tensor, "beams rows"]) -> Float[Tensor, "beams d_b"]:
        """B's expected embedding of the next word: a good probe, since it is close to the likely words.

        A word of several sub-tokens in B counts with their mean.

        Args:
            probabilities: (beams, rows of A's embedding table), of A's next token. The probability of tokens
                that do not begin a word is shared among the others.

        Returns:
            (beams, d_B).
        """
        table = self.model_b.embedding_table
        chance = probabilities[:, self._candidates.tokens.to(probabilities.device)].to(table.device).float()
        # The smallest positive number keeps a beam where every word has probability 0 defined: all equal.
        chance = chance + torch.finfo(chance.dtype).tiny
        chance = chance / chance.sum(1, keepdim=True)
        each = chance / self._lengths.to(chance)
        owner, subtoken = self._owner.to(table.device), self._subtoken.to(table.device)
        usage = chance.new_zeros(len(chance), len(table)).index_add(1, subtoken, each[:, owner])
        return self.product(usage.to(table.dtype), table.T)

    def _check(self, slot: SlotGradient) -> None:
        if slot.loss.shape[1] != self.max_subtokens:
            raise ValueError(
                f"the slot has up to {slot.loss.shape[1]} sub-tokens, the transport {self.max_subtokens}; "
                "use the same number"
            )

    def _spread(self, estimates: Float[Tensor, "beams K"]) -> Float[Tensor, "beams rows"]:
        """Put the estimates of the candidates, (beams, K), at their rows, (beams, rows)."""
        spread = estimates.new_full((len(estimates), self._candidates.rows), float("nan"))
        spread[:, self._candidates.tokens.to(estimates.device)] = estimates
        return spread


class LexicalTransport(Transport):
    """Looks up the sub-tokens of each candidate's word in B, so the only error is the first-order one.

    The estimate is ``loss[m] + sum_j <g[m, j], Y_B(b_j) - probe>`` for a word of the B-tokens b_1 .. b_m.
    The scalar products of all nonzero gradients with B's whole table are one matrix product; the rest is a
    gather.

    Args:
        model_a: the model whose tokens are proposed.
        model_b: the model whose loss is estimated.
        max_subtokens: the longest slot; longer words are estimated in it.
    """

    def __init__(self, model_a: EmbeddingModel, model_b: EmbeddingModel, max_subtokens: int = 3) -> None:
        super().__init__(model_a, model_b, max_subtokens)
        slot, position = self._slots[self._owner] - 1, self._order.clamp(max=max_subtokens - 1)
        # The slot of m tokens has m gradients, after those of the shorter slots.
        self._kept = torch.ones(max_subtokens, max_subtokens).tril().flatten().nonzero()[:, 0]
        kept = slot * (slot + 1) // 2 + position
        self._column = kept * len(model_b.embedding_table) + self._subtoken
        # All sub-tokens that do not fit share the last position.
        length = self._lengths[self._owner]
        sharing = (length - max_subtokens + 1).clamp(min=1)
        self._share = torch.where(position == max_subtokens - 1, 1.0 / sharing, 1.0)

    def estimate(self, slot: SlotGradient) -> Float[Tensor, "beams rows"]:
        """First-order estimate of B's loss for each A-token, (beams, rows of A's embedding table)."""
        self._check(slot)
        device = slot.gradient.device
        owner, column = self._owner.to(device), self._column.to(device)
        table = self.model_b.embedding_table
        flat = slot.gradient.flatten(1, 2)[:, self._kept.to(device)]
        against_table = self.product(flat.to(table.dtype), table)
        dtype = slot.loss.dtype
        terms = against_table.flatten(1).index_select(1, column).to(dtype) * self._share.to(device, dtype)
        at_probe = torch.einsum("bmjd,bd->bm", slot.gradient, slot.probe)
        base = (slot.loss - at_probe.to(dtype))[:, self._slots.to(device) - 1]
        return self._spread(base.index_add(1, owner, terms))


class TProductTransport(Transport):
    """Carries gradients through an adapter, as the paper does: ``dL/dX_A = (dL/dX_B) * G'``.

    The forward pass is never approximated: B encodes the text itself. Only the gradient goes through the map,
    by its true adjoint, including the reversal of the tubes. The map is the one fitted for words of
    ``max(n_A, n_B)`` sub-tokens.

    Args:
        adapter: fitted from A to B.
        model_a: the model whose tokens are proposed.
        model_b: the model whose loss is estimated.
        max_subtokens: the longest slot; longer words are estimated in it.

    Raises:
        AdapterError: if the adapter was fitted on other models.
    """

    def __init__(
        self, adapter: Adapter, model_a: EmbeddingModel, model_b: EmbeddingModel, max_subtokens: int = 3
    ) -> None:
        super().__init__(model_a, model_b, max_subtokens)
        adapter.verify(model_a, model_b)
        self.adapter = adapter
        # An appended token is a word of one sub-token in A, so the map is that of its length in B.
        kinds, self._kind_of = torch.unique(self._lengths, return_inverse=True)
        self._kind_slots = kinds.clamp(max=max_subtokens) - 1
        self._pulls = [self._pull_of(n) for n in kinds.tolist()]

    def _pull_of(self, n: int) -> Float[Tensor, "{self.max_subtokens} d_b d_a"]:
        """The map from the slot's gradient to the single A-token of a word of n B-tokens, (M, d_B, d_A).

        With one sub-token in A, ``(g * G')`` at its position is the sum of g_j times the transposed slice
        j of G: there the reversed tubes of G' meet the gradient in order. The last position of the slot
        stands for the mean of all sub-tokens that do not fit, so it takes the mean of their slices.
        """
        slices = self.adapter.maps.of_length(n).permute(2, 1, 0)
        m = min(n, self.max_subtokens)
        kept = torch.cat([slices[: m - 1], slices[m - 1 :].mean(0, keepdim=True)])
        return torch.cat([kept, kept.new_zeros(self.max_subtokens - m, *kept.shape[1:])])

    def estimate(self, slot: SlotGradient) -> Float[Tensor, "beams rows"]:
        """First-order estimate of B's loss for each A-token, (beams, rows of A's embedding table)."""
        self._check(slot)
        device, dtype = slot.loss.device, slot.loss.dtype
        table = self.model_a.embedding_table
        pulled = slot.gradient.new_zeros(len(slot.probe), len(self._pulls), table.shape[1])
        for kind, (pull, m) in enumerate(zip(self._pulls, self._kind_slots.tolist(), strict=True)):
            pulled[:, kind] = slot.gradient[:, m].flatten(1) @ pull.to(pulled).flatten(0, 1)
        against_table = self.product(pulled.to(table.dtype), table)
        kind_of, tokens = self._kind_of.to(device), self._candidates.tokens.to(device)
        terms = against_table[:, kind_of, tokens].to(dtype)
        at_probe = torch.einsum("bmjd,bd->bm", slot.gradient, slot.probe)
        base = (slot.loss - at_probe.to(dtype))[:, self._slots.to(device) - 1]
        return self._spread(base + terms)

    def transport_gradient(
        self, gradient_b: Float[Tensor, "*_"], n_a: Sequence[int], n_b: Sequence[int]
    ) -> Float[Tensor, "batch {sum(n_a)} d_a"]:
        """Carry gradients at B's embeddings of a text to A's.

        Args:
            gradient_b: (batch, sum(n_b), d_B).
            n_a: sub-tokens of each segment in A.
            n_b: sub-tokens of each segment in B.

        Returns:
            (batch, sum(n_a), d_A).
        """
        return self.adapter.pull(gradient_b, n_a, n_b)

    def couple(
        self,
        x_a: Float[Tensor, "batch tokens_a d_a"],
        y_b: Float[Tensor, "batch tokens_b d_b"],
        n_a: Sequence[int],
        n_b: Sequence[int],
    ) -> Float[Tensor, "batch tokens_b d_b"]:
        """B's own embeddings of a text, whose gradient continues to A's embeddings of it.

        Args:
            x_a: (batch, sum(n_a), d_A), A's embeddings of the text's segments in order.
            y_b: (batch, sum(n_b), d_B), B's embeddings of the same text, looked up, not mapped.
            n_a: sub-tokens of each segment in A.
            n_b: sub-tokens of each segment in B.

        Returns:
            ``y_b``; in the backward pass its gradient reaches ``x_a`` through the adjoint of the map.
        """
        coupled: Tensor = _Coupling.apply(x_a, y_b, self.adapter, tuple(n_a), tuple(n_b))  # type: ignore[no-untyped-call]
        return coupled


class _Coupling(torch.autograd.Function):
    """Forward: B's embeddings as they are. Backward: through the adapter to A's."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x_a: Float[Tensor, "batch tokens_a d_a"],
        y_b: Float[Tensor, "batch tokens_b d_b"],
        adapter: Adapter,
        n_a: tuple[int, ...],
        n_b: tuple[int, ...],
    ) -> Float[Tensor, "batch tokens_b d_b"]:
        ctx.adapter, ctx.n_a, ctx.n_b = adapter, n_a, n_b  # type: ignore[attr-defined]
        return y_b.clone()

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, gradient: Float[Tensor, "batch tokens_b d_b"]
    ) -> tuple[Float[Tensor, "batch _ _"] | None, ...]:
        adapter, n_a, n_b = ctx.adapter, ctx.n_a, ctx.n_b  # type: ignore[attr-defined]
        return adapter.pull(gradient, n_a, n_b), gradient, None, None, None

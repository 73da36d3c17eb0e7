"""What becomes of the objective if one token of a text is swapped for another: a first-order estimate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from promptfuse.adapters import AnchorTransport, TProductTransport
from promptfuse.errors import TextError
from promptfuse.models import CausalLM, Model
from promptfuse.objectives import Fluency, Term
from promptfuse.objectives.gradients import TextGradient, common_segments, text_gradient
from promptfuse.search.methods.context import SearchContext
from promptfuse.search.methods.transports import Transports, transport, transport_name
from promptfuse.text.segments import encode_words, special_ids


class SwapEstimator:
    """The gradient of an objective with respect to the one-hot tokens of a text.

    A term under the primary gives its true gradient: at the input embeddings and, for the fluency, at
    the token as what is predicted. A term under another model gives its gradient through a transport:

    * ``lexical``: where a token of the primary is a word by itself, the sub-tokens of each other word
      take the places of its sub-tokens. A longer one has its surplus averaged in the last place, a
      shorter one fills the places left with its last sub-token. Other swaps are taken to change the term
      by as much as the average of those known.
    * ``t-product``: the gradient goes through the adapter to all tokens.
    * ``sparse-sums``, ``similarities``, ``landmark-pca``: all tokens have embeddings in the other model.
      Those of a word share its gradient by their order: with as many tokens in both, each has its own.
    * ``effects`` has no gradient: as ``lexical``.

    Args:
        context: the objective and the words that may be proposed.
        kind: the transport, or ``none`` to leave other models out.
    """

    def __init__(self, context: SearchContext, kind: Transports | Literal["none"]) -> None:
        self.context = context
        self.primary = context.primary
        self.kind: Transports | Literal["none"] = kind
        self._lexicons: dict[int, Lexicon] = {}

    def changes(self, text: str, ids: Sequence[int]) -> Float[Tensor, "{len(ids)} vocabulary"]:
        """Estimated change of the objective's weighted sum for every swap.

        Args:
            text: the text.
            ids: its tokens under the primary.

        Returns:
            (tokens, rows of the primary's table), float32, on the CPU.

        Raises:
            TextError: if the text does not fit a model.
        """
        table = self.primary.embedding_table
        found = torch.zeros(len(ids), len(table))
        spans = self.primary_spans(text, ids)
        for term in self.context.objective.terms.values():
            if not term.has_gradient:
                continue
            if same_model(term.model, self.primary):
                change = self._own(term, text, ids, spans)
            elif self.kind == "none":
                continue
            else:
                gradient = text_gradient(term, text)
                segments = common_segments(text, spans, gradient.spans)
                change = self._carried(term.model, gradient, segments, ids)
            found += term.weight * change
        return found

    def _carried(
        self,
        model: Model,
        gradient: TextGradient,
        segments: Sequence[tuple[range, range]],
        ids: Sequence[int],
    ) -> Float[Tensor, "{len(ids)} vocabulary"]:
        """A term under another model: by the transport."""
        kind = transport_name(self.primary, model, self.kind)
        if kind in ("lexical", "effects"):
            return self._lexical(model, gradient, segments, ids)
        carrier = transport(self.primary, model, kind, 1)
        if isinstance(carrier, AnchorTransport):
            changes = carrier.changes(shared(gradient.gradient, segments, len(ids))).float().cpu()
            return changes - changes.gather(1, torch.tensor(ids)[:, None])
        assert isinstance(carrier, TProductTransport)
        return against_table(pulled(carrier, gradient, segments, len(ids)), self.primary.embedding_table, ids)

    def primary_transport(self, model: Model) -> TProductTransport:
        """The t-product transport from a model to the primary."""
        found = transport(self.primary, model, self.kind, 1)
        assert isinstance(found, TProductTransport)
        return found

    def primary_spans(self, text: str, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Where the primary's tokens lie in a text.

        Raises:
            TextError: if they are not the tokens that the primary reads.
        """
        spans = self.primary.spans(text)
        if len(spans) != len(ids):
            raise TextError(
                f"text {text!r}: {self.primary.name} reads it as other tokens than it was made of"
            )
        return spans

    def _own(
        self, term: Term, text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]]
    ) -> Float[Tensor, "{len(ids)} vocabulary"]:
        """A term under the primary itself: aligned token by token."""
        gradient = text_gradient(term, text)
        table = self.primary.embedding_table
        used: list[tuple[int, int]] = []
        for own, other in common_segments(text, spans, gradient.spans):
            # A prefix or context may make other tokens of the first word; those say nothing here.
            if gradient.ids[other.start : other.stop].tolist() == list(ids[own.start : own.stop]):
                used += zip(own, other, strict=True)
        found = torch.zeros(len(ids), len(table))
        if not used:
            return found
        own_places, other_places = (list(places) for places in zip(*used, strict=True))
        own_ids = [ids[place] for place in own_places]
        part = against_table(gradient.gradient[other_places], table, own_ids)
        if isinstance(term, Fluency) and gradient.labels is not None:
            labels = gradient.labels[other_places, : len(table)]
            part[:, : labels.shape[1]] += labels - labels.gather(1, torch.tensor(own_ids)[:, None])
        found[own_places] = part
        return found

    def _lexical(
        self,
        model: Model,
        gradient: TextGradient,
        segments: Sequence[tuple[range, range]],
        ids: Sequence[int],
    ) -> Float[Tensor, "{len(ids)} vocabulary"]:
        key = id(model)
        if key not in self._lexicons:
            self._lexicons[key] = Lexicon(self.context.whole_words, model)
        lexicon = self._lexicons[key]
        found = torch.zeros(len(ids), len(self.primary.embedding_table))
        for own, other in segments:
            if len(own) != 1 or not len(other):
                continue
            part = slice(other.start, other.stop)
            change = lexicon.changes(gradient.gradient[part], gradient.ids[part])
            found[own.start] = float(change.mean()) if len(change) else 0.0
            found[own.start, lexicon.tokens] = change
        return found


class Lexicon:
    """The primary's whole words as another model spells them.

    Args:
        words: {token of the primary: word}.
        model: the other model.

    Attributes:
        tokens: (K,), the primary's tokens whose words the model can spell.
    """

    def __init__(self, words: dict[int, str], model: Model) -> None:
        self.model = model
        rows = len(model.embedding_table)
        spelled = encode_words(model.tokenizer, list(words.values()))
        special = special_ids(model.tokenizer)
        known = [
            (token, ids)
            for token, ids in zip(words, spelled, strict=True)
            if ids is not None and max(ids) < rows and special.isdisjoint(ids)
        ]
        self.tokens = torch.tensor([token for token, _ in known], dtype=torch.long)
        entries = [
            (word, place, len(ids), index)
            for word, (_, ids) in enumerate(known)
            for place, index in enumerate(ids)
        ]
        columns = torch.tensor(entries, dtype=torch.long).reshape(-1, 4).unbind(1)
        self._word, self._place, self._length, self._subtoken = columns

    def changes(self, gradient: Float[Tensor, "n d"], ids: Int[Tensor, " n"]) -> Float[Tensor, " K"]:
        """First-order changes if each word takes the place of the one that is there, (K,).

        Args:
            gradient: (n, d), at the sub-tokens of the word that is there.
            ids: (n,), those sub-tokens.
        """
        n = len(ids)
        table = self.model.embedding_table
        products = (gradient.to(table) @ table.T).float().cpu()
        now = products.gather(1, ids[:, None]).sum()
        # Row n + k is what a last sub-token in place k stands for: itself and all places after it.
        rest = products.flip(0).cumsum(0).flip(0)
        products = torch.cat([products, rest])
        place = self._place.clamp(max=n - 1)
        last = (self._place == self._length - 1) | (self._place >= n - 1)
        share = 1.0 / (self._length - n + 1).clamp(min=1)
        weight = torch.where(place == n - 1, share, torch.ones_like(share))
        terms = products[torch.where(last, place + n, place), self._subtoken] * weight
        return torch.zeros(len(self.tokens)).index_add(0, self._word, terms) - now


def same_model(model: Model, primary: CausalLM) -> bool:
    """Whether a term's model is the primary, whatever context either reads before texts."""
    return isinstance(model, CausalLM) and model.plain is primary.plain


def against_table(
    gradient: Float[Tensor, "tokens d"], table: Float[Tensor, "vocabulary d"], ids: Sequence[int]
) -> Float[Tensor, "tokens vocabulary"]:
    """Gradients (tokens, d) as changes for every row of a table, (tokens, rows): zero for the own token."""
    products = (gradient.to(table) @ table.T).float().cpu()
    return products - products.gather(1, torch.tensor(ids)[:, None])


def shared(
    gradient: Float[Tensor, "tokens_b d"], segments: Sequence[tuple[range, range]], tokens: int
) -> Float[Tensor, "{tokens} d"]:
    """Gradients at another model's tokens shared out among the primary's, (tokens, d).

    Within a segment the tokens of either model are taken to be of equal length; a gradient goes to those that
    its token overlaps, in these shares.
    """
    found = gradient.new_zeros(tokens, gradient.shape[1])
    for own, other in segments:
        if not len(own) or not len(other):
            continue
        i, j = torch.arange(len(own))[:, None] / len(own), torch.arange(len(other)) / len(other)
        ends = torch.minimum(i + 1 / len(own), j + 1 / len(other))
        overlap = (ends - torch.maximum(i, j)).clamp_min(0) * len(other)
        found[own.start : own.stop] = overlap.to(gradient) @ gradient[other.start : other.stop]
    return found


def pulled(
    carrier: TProductTransport,
    gradient: TextGradient,
    segments: Sequence[tuple[range, range]],
    tokens: int,
) -> Float[Tensor, "{tokens} d"]:
    """A secondary term's gradient at the primary's embeddings, (tokens, d), through the t-product map."""
    used = [(own, other) for own, other in segments if len(own) and len(other)]
    found = torch.zeros(tokens, carrier.model_a.embedding_table.shape[1])
    if not used:
        return found
    chosen = torch.cat([gradient.gradient[other.start : other.stop] for _, other in used])
    carried = carrier.transport_gradient(
        chosen[None], [len(own) for own, _ in used], [len(other) for _, other in used]
    )[0]
    found[[index for own, _ in used for index in own]] = carried.float().cpu()
    return found

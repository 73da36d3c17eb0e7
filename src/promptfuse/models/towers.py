"""The causal text tower of CLIP and its kin, for many texts that share their beginnings.

``transformers`` gives these towers no cache of keys and values, so this is a forward pass of our own over
their modules: pre-norm blocks, causal attention, features at the end mark. It is used where a tower has
exactly these parts and a trial shows that both passes agree; see ``TextTower.of``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from promptfuse.models.prefix import (
    Branches,
    Prefix,
    PrefixCache,
    at_least_float32,
    ragged_positions,
    stack_keys,
)
from promptfuse.models.products import feed_forward, linear

_PARTS = {"embeddings", "encoder", "final_layer_norm"}
_LAYER = {"self_attn", "layer_norm1", "mlp", "layer_norm2"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "out_proj"}
_MLP = {"activation_fn", "fc1", "fc2"}


@dataclass(frozen=True)
class _Sight:
    """What queries see of the prefixes.

    Attributes:
        hidden: (queries, longest prefix), true at the tokens that a query does not see; None if there
            are none.
        spread: (prefixes, most queries) the queries of each prefix, filled up with the first; None if
            there is one prefix only.
        slots: (queries,) where ``spread``, flattened, has each query; None likewise.
    """

    hidden: Tensor | None
    spread: Tensor | None
    slots: Tensor | None

    @classmethod
    def of(cls, owner: Tensor, shared: Tensor, prefixes: Sequence[Prefix], device: torch.device) -> _Sight:
        """The sight of queries that each have a prefix, and the number of its tokens that they share."""
        beyond = torch.arange(max(map(len, prefixes))) >= shared[:, None]
        hidden = beyond.to(device) if bool(beyond.any()) else None
        if len(prefixes) == 1:
            return cls(hidden, None, None)
        many = owner.bincount(minlength=len(prefixes))
        grouped = owner.argsort(stable=True)
        rank = torch.arange(len(owner)) - (many.cumsum(0) - many)[owner[grouped]]
        spread = torch.zeros(len(prefixes), int(many.max()), dtype=torch.long)
        spread[owner[grouped], rank] = grouped
        slots = torch.empty_like(owner)
        slots[grouped] = owner[grouped] * spread.shape[1] + rank
        return cls(hidden, spread.to(device), slots.to(device))

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """Each query times its prefix's matrix.

        Args:
            left: (queries, heads, a).
            right: (prefixes, heads, a, b).

        Returns:
            (queries, heads, b).
        """
        if self.spread is None or self.slots is None:
            return (left.transpose(0, 1) @ right[0]).transpose(0, 1)
        product = left[self.spread].transpose(1, 2) @ right
        return product.transpose(1, 2).flatten(0, 1)[self.slots]


@dataclass(frozen=True)
class _Layout:
    """New tokens of branches, one after the other, and what they attend to.

    Attributes:
        positions: (tokens,) their places in their rows.
        groups: runs of equally long branches: how many, how long; ascending in length.
        last: (branches,) where each branch ends.
        every: the sight of all tokens.
        ends: the sight of the branches' last tokens.
    """

    positions: Tensor
    groups: tuple[tuple[int, int], ...]
    last: Tensor
    every: _Sight
    ends: _Sight

    @classmethod
    def of(
        cls,
        prefixes: Sequence[Prefix],
        origin: Sequence[int],
        shared: Sequence[int],
        lengths: Sequence[int],
        device: torch.device,
    ) -> _Layout:
        """The layout of branches in ascending order of their new tokens' number."""
        count, seen, owner = torch.tensor(lengths), torch.tensor(shared), torch.tensor(origin)
        branch, positions = ragged_positions(seen, count)
        return cls(
            positions.to(device),
            tuple((len(list(group)), length) for length, group in groupby(lengths)),
            (count.cumsum(0) - 1).to(device),
            _Sight.of(owner[branch], seen[branch], prefixes, device),
            _Sight.of(owner, seen, prefixes, device),
        )


class TextTower:
    """A forward pass over the modules of a text tower such as ``CLIPTextModel``.

    Args:
        module: the tower.
        projection: from the tower's width to that of the features.
        limit: bytes of keys and values to remember.
    """

    def __init__(self, module: Any, projection: nn.Module, limit: int) -> None:
        self.module = module
        self.projection = projection
        self.layers = list(module.encoder.layers)
        self.heads = int(self.layers[0].self_attn.num_heads)
        self.cache = PrefixCache(module, limit)

    @staticmethod
    def matches(module: Any) -> bool:
        """Whether a module has the parts of CLIP's text tower and no others."""
        if {name for name, _ in module.named_children()} != _PARTS or not hasattr(module, "eos_token_id"):
            return False
        embeddings = {name for name, _ in module.embeddings.named_children()}
        layers = getattr(module.encoder, "layers", ())
        return (
            embeddings == {"token_embedding", "position_embedding"}
            and len(layers) > 0
            and all(
                {name for name, _ in layer.named_children()} == _LAYER
                and {name for name, _ in layer.self_attn.named_children()} == _ATTENTION
                and {name for name, _ in layer.mlp.named_children()} <= _MLP
                for layer in layers
            )
        )

    # -------------------------------------------------------------------------------- what is asked

    def pooling_column(self, row: Sequence[int]) -> int:
        """The place whose features are the text's: the first end mark."""
        # Old configurations have a wrong end mark, and mean the highest id.
        end = self.module.eos_token_id
        if end == 2:
            return max(range(len(row)), key=row.__getitem__)
        return row.index(end) if end in row else 0

    @torch.no_grad()
    def prefixes(self, rows: Sequence[tuple[int, ...]]) -> list[Prefix]:
        """Keys and values of rows, through what is remembered of their beginnings."""
        held = self.cache.beginnings(rows)
        missing = {row: prefix for row, prefix in zip(rows, held, strict=True) if len(prefix) < len(row)}
        made = dict(zip(rows, held, strict=True))
        made.update(self._grow(missing))
        found = [made[row] for row in rows]
        self.cache.hold(found)
        return found

    def features(self, rows: Sequence[Sequence[int]], branches: Branches) -> Tensor:
        """Features of rows, (rows, features), of any length; differentiable."""
        lengths = [
            self.pooling_column(row) + 1 - shared for row, shared in zip(rows, branches.shared, strict=True)
        ]
        order = sorted(range(len(rows)), key=lambda index: (lengths[index], branches.origin[index]))
        hidden, _ = self._read(
            branches.prefixes,
            [branches.origin[index] for index in order],
            [branches.shared[index] for index in order],
            [rows[index][branches.shared[index] :][: lengths[index]] for index in order],
            None if branches.embeddings is None else branches.embeddings[torch.tensor(order)],
            pool=True,
        )
        place = torch.tensor(order, device=hidden.device).argsort()
        return linear(self.projection, self.module.final_layer_norm(hidden))[place]

    # -------------------------------------------------------------------------------- how it is done

    def _grow(self, missing: dict[tuple[int, ...], Prefix]) -> dict[tuple[int, ...], Prefix]:
        """Read the rest of each row behind the prefix that is known."""
        if not missing:
            return {}
        order = sorted(missing, key=lambda row: len(row) - len(missing[row]))
        prefixes = tuple(missing[row] for row in order)
        fresh = [row[len(prefix) :] for row, prefix in zip(order, prefixes, strict=True)]
        shared = [len(prefix) for prefix in prefixes]
        _, new = self._read(prefixes, range(len(order)), shared, fresh, None, pool=False)
        found, first = {}, 0
        for row, prefix, tail in zip(order, prefixes, fresh, strict=True):
            part = slice(first, first := first + len(tail))
            keys = _extend(prefix.keys, [key[part].transpose(0, 1) for key, _ in new])
            values = _extend(prefix.values, [value[part].transpose(0, 1) for _, value in new])
            found[row] = Prefix(row, keys, values)
        return found

    def _read(
        self,
        prefixes: Sequence[Prefix],
        origin: Sequence[int],
        shared: Sequence[int],
        fresh: Sequence[Sequence[int]],
        embeddings: Tensor | None,
        pool: bool,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Read branches' new tokens, in ascending order of their number.

        Args:
            prefixes: what the branches go on from.
            origin: for each branch the number of its prefix.
            shared: for each branch how many tokens of the prefix it sees.
            fresh: for each branch its new tokens, at least one.
            embeddings: (branches, length, d) of the whole rows, or None to look the new tokens up.
            pool: whether the branches' last tokens are wanted rather than keys and values.

        Returns:
            Hidden states of the last tokens, (branches, d), and keys and values of all new tokens, for
            each layer (tokens, heads, width); one of both is empty.
        """
        device = self.module.final_layer_norm.weight.device
        layout = _Layout.of(prefixes, origin, shared, [len(tail) for tail in fresh], device)
        if embeddings is None:
            ids = torch.tensor([token for tail in fresh for token in tail], device=device)
            hidden = self.module.embeddings.token_embedding(ids)
        else:
            lengths = torch.tensor([len(tail) for tail in fresh], device=device)
            rows, _ = ragged_positions(torch.zeros_like(lengths), lengths)
            hidden = embeddings[rows, layout.positions]
        hidden = hidden + self.module.embeddings.position_embedding(layout.positions)
        known = [prefix if len(prefix) else None for prefix in prefixes]
        longest = max(map(len, prefixes))
        collected = []
        for number, layer in enumerate(self.layers):
            final = number == len(self.layers) - 1
            attention = layer.self_attn
            normed = layer.layer_norm1(hidden)
            keys, values = (
                linear(projection, normed).view(len(normed), self.heads, -1)
                for projection in (attention.k_proj, attention.v_proj)
            )
            if not pool:
                collected.append((keys, values))
                if final:
                    break
            if final:  # Nobody attends to what the other tokens become.
                hidden, normed = hidden[layout.last], normed[layout.last]
            queries = linear(attention.q_proj, normed).view(len(normed), self.heads, -1)
            before = _before(known, longest, number, keys)
            mixed = _attend(queries * attention.scale, keys, values, before, layout, final)
            hidden = hidden + linear(attention.out_proj, mixed.flatten(1))
            mlp = layer.mlp
            hidden = hidden + feed_forward(mlp.fc1, mlp.activation_fn, mlp.fc2, layer.layer_norm2(hidden))
        return (hidden if pool else hidden[:0]), collected


def _before(
    prefixes: Sequence[Prefix | None], longest: int, layer: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Keys and values of prefixes in one layer, (prefixes, heads, longest, width); of an empty one None."""
    blank = like.new_empty(like.shape[1], 0, like.shape[2])
    keys = [blank if prefix is None else prefix.keys[layer] for prefix in prefixes]
    values = [blank if prefix is None else prefix.values[layer] for prefix in prefixes]
    return stack_keys(keys, longest), stack_keys(values, longest)


def _extend(old: tuple[Tensor, ...], new: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Keys or values with those of further tokens behind them, layer by layer."""
    if not old:
        return tuple(tensor.contiguous() for tensor in new)
    return tuple(torch.cat(pair, 1) for pair in zip(old, new, strict=True))


def _attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    before: tuple[Tensor, Tensor],
    layout: _Layout,
    only_last: bool,
) -> Tensor:
    """Attention of branches to their prefix and to themselves.

    Args:
        queries: (tokens, heads, width), scaled; of the branches' last tokens with ``only_last``.
        keys: (tokens, heads, width).
        values: (tokens, heads, width).
        before: keys and values of the prefixes, (prefixes, heads, longest, width).
        layout: which tokens belong together.
        only_last: whether the last token of each branch alone asks.

    Returns:
        (queries, heads, width).
    """
    longest = before[0].shape[2]
    sight = layout.ends if only_last else layout.every
    pieces = list(_pieces(queries, keys, values, layout, only_last))
    widest = layout.groups[-1][1]
    scores = queries.new_full((*queries.shape[:2], longest + widest), -torch.inf)
    if longest:
        there = sight.product(queries, before[0].transpose(2, 3))
        if sight.hidden is not None:
            there = there.masked_fill(sight.hidden[:, None], -torch.inf)
        scores[:, :, :longest] = there
    for rows, asking, known, _ in pieces:
        own = _own_scores(asking, known)
        if not only_last:
            own = own + own.new_full((own.shape[1], own.shape[3]), -torch.inf).triu(1)[:, None]
        scores[rows, :, longest : longest + own.shape[3]] = own.flatten(0, 1)
    chances = at_least_float32(scores).softmax(-1).to(values.dtype)
    found = []
    for rows, asking, _, said in pieces:
        own = _split(chances[rows, :, longest : longest + said.shape[1]], len(asking))
        found.append(_own_values(own, said).flatten(0, 1))
    mixed = torch.cat(found) if len(found) > 1 else found[0]
    return mixed + sight.product(chances[:, :, :longest], before[1]) if longest else mixed


def _pieces(
    queries: Tensor, keys: Tensor, values: Tensor, layout: _Layout, only_last: bool
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Branches of one length at a time.

    Yields:
        Their queries' rows, and queries, keys and values, (branches, tokens, heads, width) each.
    """
    first, start = 0, 0
    for many, length in layout.groups:
        asking = 1 if only_last else length
        part = slice(first, first := first + many * length)
        rows = slice(start, start := start + many * asking)
        yield (
            rows,
            _split(queries[rows], many),
            _split(keys[part], many),
            _split(values[part], many),
        )


def _split(tensor: Tensor, many: int) -> Tensor:
    """(branches x tokens, heads, any) of equally long branches as (branches, tokens, heads, any)."""
    return tensor.reshape(many, -1, *tensor.shape[1:])


def _few(keys: Tensor) -> bool:
    """Whether branches are so short that a product of matrices takes longer than one of numbers."""
    return keys.shape[1] <= 4 and keys.device.type == "cpu" and keys.dtype == torch.float32


def _own_scores(asking: Tensor, known: Tensor) -> Tensor:
    """Products of branches' queries (branches, a, heads, width) and keys (branches, b, heads, width).

    Returns:
        (branches, a, heads, b).
    """
    if _few(known):
        columns = [(asking * known[:, index, None]).sum(-1) for index in range(known.shape[1])]
        return torch.stack(columns, -1)
    return (asking.transpose(1, 2) @ known.permute(0, 2, 3, 1)).transpose(1, 2)


def _own_values(chances: Tensor, said: Tensor) -> Tensor:
    """Values (branches, b, heads, width) weighed by chances (branches, a, heads, b).

    Returns:
        (branches, a, heads, width).
    """
    if not _few(said):
        return (chances.transpose(1, 2) @ said.transpose(1, 2)).transpose(1, 2)
    found = chances[..., :1] * said[:, :1]
    for index in range(1, said.shape[1]):
        found = torch.addcmul(found, chances[..., index, None], said[:, index, None])
    return found

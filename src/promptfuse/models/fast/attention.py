"""Attention of branches to their prefixes and to themselves, for a text tower's pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from promptfuse.models.branches import KVPrefix
from promptfuse.models.fast.dense_attention import behind, dense_chances, dense_mask
from promptfuse.models.fast.prefix import ragged_positions
from promptfuse.models.precision import at_least_float32

NEAR = 8
"""Tokens of a branch up to which, in float32 on a CPU, a product of numbers for each distance is faster than
one of matrices."""


RUN = 64
"""Queries of a prefix, on average, from which each prefix has a product of its own, where they stand
together; otherwise all are filled up to the same number, which takes copies but one product."""


def reading_order(lengths: Sequence[int], prefix_index: Sequence[int], like: Tensor) -> list[int]:
    """The order in which branches are read fastest, and that ``Layout.of`` asks for.

    Args:
        lengths: how many new tokens each has.
        prefix_index: the number of each one's prefix.
        like: a tensor of the type and on the device of the keys.
    """
    if _near(lengths, like):
        return sorted(range(len(lengths)), key=lambda index: (prefix_index[index], lengths[index]))
    return sorted(range(len(lengths)), key=lambda index: (lengths[index], prefix_index[index]))


def _near(lengths: Sequence[int], like: Tensor) -> bool:
    """Whether branches attend to themselves by distances rather than by products of matrices."""
    return max(lengths, default=0) <= NEAR and like.device.type == "cpu" and like.dtype == torch.float32


@dataclass(frozen=True)
class _PrefixMask:
    """What queries see of the prefixes.

    Attributes:
        hidden: (queries, longest prefix), true at the tokens that a query does not see; None if there
            are none.
        runs: each prefix's queries, where these stand together and are many; empty otherwise.
        spread: (prefixes, most queries) the queries of each prefix, filled up with the first; None if
            there are ``runs``.
        slots: (queries,) where ``spread``, flattened, has each query; None likewise.
    """

    hidden: Bool[Tensor, "queries longest"] | None
    runs: tuple[slice, ...]
    spread: Int[Tensor, "prefixes most"] | None
    slots: Int[Tensor, " queries"] | None

    @classmethod
    def of(
        cls,
        owner: Int[Tensor, " queries"],
        prefix_length: Int[Tensor, " queries"],
        prefixes: Sequence[KVPrefix],
        device: torch.device,
    ) -> _PrefixMask:
        """The sight of queries that each have a prefix, and the number of its tokens that they share."""
        beyond = torch.arange(max(map(len, prefixes))) >= prefix_length[:, None]
        hidden = beyond.to(device) if bool(beyond.any()) else None
        many = owner.bincount(minlength=len(prefixes))
        if len(prefixes) == 1 or (len(owner) >= RUN * len(prefixes) and bool((owner.diff() >= 0).all())):
            ends = many.cumsum(0).tolist()
            return cls(hidden, tuple(map(slice, [0, *ends], ends)), None, None)
        grouped = owner.argsort(stable=True)
        rank = torch.arange(len(owner)) - (many.cumsum(0) - many)[owner[grouped]]
        spread = torch.zeros(len(prefixes), int(many.max()), dtype=torch.long)
        spread[owner[grouped], rank] = grouped
        slots = torch.empty_like(owner)
        slots[grouped] = owner[grouped] * spread.shape[1] + rank
        return cls(hidden, (), spread.to(device), slots.to(device))

    def score(
        self,
        queries: Float[Tensor, "queries heads width"],
        keys: Float[Tensor, "prefixes heads longest width"],
        into: Float[Tensor, "heads longest queries"],
    ) -> None:
        """Each query times the keys of its prefix, -inf at those that it does not see.

        Args:
            queries: (queries, heads, width).
            keys: (prefixes, heads, longest, width).
            into: (heads, longest, queries), what is written.
        """
        if self.spread is None or self.slots is None:
            for run, known in zip(self.runs, keys, strict=True):
                into[:, :, run] = known @ queries[run].permute(1, 2, 0)
        else:
            each = keys @ queries[self.spread].permute(0, 2, 3, 1)
            into.copy_(each.permute(1, 2, 0, 3).flatten(2)[:, :, self.slots])
        if self.hidden is not None:
            into.masked_fill_(self.hidden.T, -torch.inf)

    def add_values(
        self,
        chances: Float[Tensor, "heads longest queries"],
        values: Float[Tensor, "prefixes heads longest width"],
        to: Float[Tensor, "queries heads width"],
    ) -> None:
        """The values of each query's prefix, weighed by chances.

        Args:
            chances: (heads, longest, queries).
            values: (prefixes, heads, longest, width).
            to: (queries, heads, width), what they are added to.
        """
        if self.spread is None or self.slots is None:
            for run, said in zip(self.runs, values, strict=True):
                to[run].transpose(0, 1).baddbmm_(chances[:, :, run].transpose(1, 2), said)
        else:
            each = chances[:, :, self.spread].permute(2, 0, 3, 1) @ values
            to.add_(each.transpose(1, 2).flatten(0, 1)[self.slots])


@dataclass(frozen=True)
class Layout:
    """New tokens of branches, one after the other, and what they attend to.

    Attributes:
        positions: (tokens,) their places in their rows.
        groups: runs of equally long branches: how many, how long; none where branches attend by distances.
        widest: the most tokens of a branch.
        depth: (tokens,) how many tokens of the branch stand before each.
        last: (branches,) where each branch ends.
        mask: (tokens, all prefixes' tokens + tokens), 0 where a token sees another and -inf elsewhere;
            None where that would be large.
        every: the sight of all tokens; None where there is a mask.
        ends: the sight of the branches' last tokens; None where there is a mask.
        longer: for each distance, the runs of tokens, and of branches, among which are all that have a token
            so far before them in their branch; none where there is a mask.
    """

    positions: Tensor
    groups: tuple[tuple[int, int], ...]
    widest: int
    depth: Tensor
    last: Tensor
    mask: Tensor | None
    every: _PrefixMask | None
    ends: _PrefixMask | None
    longer: tuple[tuple[tuple[slice, slice], ...], ...]

    @classmethod
    def of(
        cls,
        prefixes: Sequence[KVPrefix],
        prefix_index: Sequence[int],
        prefix_length: Sequence[int],
        lengths: Sequence[int],
        like: Tensor,
    ) -> Layout:
        """The layout of branches in their ``reading_order``, which takes the same ``like``."""
        device = like.device
        count, seen, owner = torch.tensor(lengths), torch.tensor(prefix_length), torch.tensor(prefix_index)
        branch, positions = ragged_positions(seen, count)
        mask = dense_mask(prefixes, owner[branch], seen[branch], branch, device)
        every = _PrefixMask.of(owner[branch], seen[branch], prefixes, device) if mask is None else None
        # The branches of a prefix are in order of their lengths, so those that are longer stand together.
        stretches = [len(list(same)) for _, same in groupby(prefix_index)]
        return cls(
            positions.to(device),
            () if _near(lengths, like) else tuple((len(list(all_)), each) for each, all_ in groupby(lengths)),
            max(lengths),
            (positions - seen[branch]).to(device),
            (count.cumsum(0) - 1).to(device),
            mask,
            every,
            _PrefixMask.of(owner, seen, prefixes, device) if mask is None else None,
            () if every is None else _longer(lengths, stretches if every.runs else [len(lengths)]),
        )


def _longer(lengths: Sequence[int], stretches: Sequence[int]) -> tuple[tuple[tuple[slice, slice], ...], ...]:
    """For each distance, the tokens and branches that have a token so far before them.

    Args:
        lengths: tokens of each branch.
        stretches: numbers of branches, one after the other, that are looked at by themselves.
    """
    starts = [0, *accumulate(lengths)]
    ends = list(accumulate(stretches))
    found = []
    for distance in range(max(lengths)):
        parts = []
        for begin, end in zip([0, *ends], ends, strict=False):
            first = next((index for index in range(begin, end) if lengths[index] > distance), end)
            if first < end:
                parts.append((slice(starts[first] + distance, starts[end]), slice(first, end)))
        found.append(tuple(parts))
    return tuple(found)


Before = tuple[Tensor | None, Tensor | None]
"""Keys and values of the prefixes in one layer, as ``before`` gives them."""


def before(prefixes: Sequence[KVPrefix], layout: Layout) -> Sequence[Before]:
    """Keys and values of prefixes, layer by layer; nothing at all if all prefixes are empty.

    Returns:
        For each layer (heads, all prefixes' tokens, width) twice, where the layout has a mask; elsewhere
        (prefixes, heads, longest, width), zero after the short ones.
    """
    if not any(map(len, prefixes)):
        return []
    keys, values = (
        _all_layers([getattr(one, side) for one in prefixes], layout) for side in ("keys", "values")
    )
    return list(zip(keys.unbind(0), values.unbind(0), strict=True))


def _all_layers(sides: Sequence[Tensor | tuple[Tensor, ...]], layout: Layout) -> Float[Tensor, "layers *_"]:
    """Keys or values of prefixes as ``before`` gives them, with the layers in front of all else."""
    each = [side if isinstance(side, Tensor) else torch.stack(side) if side else None for side in sides]
    known = [tensor for tensor in each if tensor is not None]
    if layout.mask is not None:
        return torch.cat(known, 2)
    if len(each) == 1:
        return known[0][:, None]
    layers, heads, _, width = known[0].shape
    longest = max(tensor.shape[2] for tensor in known)
    found = known[0].new_zeros(layers, len(each), heads, longest, width)
    for index, tensor in enumerate(each):
        if tensor is not None:
            found[:, index, :, : tensor.shape[2]] = tensor
    return found


def attend(
    queries: Float[Tensor, "queries heads width"],
    keys: Float[Tensor, "tokens heads width"],
    values: Float[Tensor, "tokens heads width"],
    known: Before,
    layout: Layout,
    only_last: bool,
) -> Float[Tensor, "queries heads width"]:
    """Attention of branches to their prefix and to themselves.

    Args:
        queries: (tokens, heads, width), scaled; of the branches' last tokens with ``only_last``.
        keys: (tokens, heads, width).
        values: (tokens, heads, width).
        known: what ``before`` gives for the layer.
        layout: which tokens belong together.
        only_last: whether the last token of each branch alone asks.

    Returns:
        (queries, heads, width).
    """
    if layout.mask is None:
        return _by_branch(queries, keys, values, known, layout, only_last)
    every, said = behind(known[0], keys), behind(known[1], values)
    mask = layout.mask[layout.last] if only_last else layout.mask
    return (dense_chances(queries.transpose(0, 1), every, mask) @ said).transpose(0, 1)


def _by_branch(
    queries: Float[Tensor, "queries heads width"],
    keys: Float[Tensor, "tokens heads width"],
    values: Float[Tensor, "tokens heads width"],
    known: Before,
    layout: Layout,
    only_last: bool,
) -> Float[Tensor, "queries heads width"]:
    """Attention branch by branch, where one mask would be large.

    Args:
        queries: see ``attend``.
        keys: see ``attend``.
        values: see ``attend``.
        known: see ``attend``.
        layout: see ``attend``.
        only_last: see ``attend``.
    """
    longest = 0 if known[0] is None else known[0].shape[2]
    sight = layout.ends if only_last else layout.every
    assert sight is not None
    own = _Grouped(layout, only_last) if layout.groups else _ShortBranchAttention(layout, only_last)
    scores = queries.new_full((queries.shape[1], longest + layout.widest, len(queries)), -torch.inf)
    own.score(queries, keys, scores[:, longest:])
    if known[0] is not None:
        sight.score(queries, known[0], scores[:, :longest])
    chances = at_least_float32(scores).softmax(1).to(values.dtype)
    mixed = own.values(chances[:, longest:], values)
    if known[1] is not None:
        sight.add_values(chances[:, :longest], known[1], mixed)
    return mixed


class _ShortBranchAttention:
    """What tokens of short branches see of their own branch: themselves, the token before, and so on.

    A product of numbers for each distance is faster than a product of matrices for each branch.

    Args:
        layout: which tokens belong together.
        only_last: whether the last token of each branch alone asks.
    """

    def __init__(self, layout: Layout, only_last: bool) -> None:
        self.longer = layout.longer
        self.last = layout.last if only_last else None
        self.depth = layout.depth[layout.last] if only_last else layout.depth

    def score(
        self,
        queries: Float[Tensor, "queries heads width"],
        keys: Float[Tensor, "tokens heads width"],
        into: Float[Tensor, "heads _ queries"],
    ) -> None:
        """Write products of queries and keys, (heads, distances, queries), where there are any."""
        for distance, asking, known in self._parts():
            column = (queries[asking] * keys[known]).sum(-1)
            if distance:
                column = column.masked_fill((self.depth[asking] < distance)[:, None], -torch.inf)
            into[:, distance, asking] = column.T

    def values(
        self, chances: Float[Tensor, "heads _ queries"], values: Float[Tensor, "tokens heads width"]
    ) -> Float[Tensor, "queries heads width"]:
        """Values weighed by chances (heads, distances, queries), (queries, heads, width)."""
        weights = chances.permute(1, 2, 0)[..., None]
        found = weights[0] * (values if self.last is None else values[self.last])
        for distance, asking, known in self._parts():
            if distance:
                found[asking].addcmul_(weights[distance, asking], values[known])
        return found

    def _parts(self) -> Iterator[tuple[int, slice, slice | Tensor]]:
        """Distances, queries that have a token so far before them, and the places of those tokens.

        A few other queries are among them, whose own branch ends before that.
        """
        for distance, parts in enumerate(self.longer):
            for tokens, branches in parts:
                if self.last is None:
                    yield distance, tokens, slice(tokens.start - distance, tokens.stop - distance)
                else:
                    yield distance, branches, (self.last[branches] - distance).clamp_min(0)


class _Grouped:
    """What tokens see of their own branch, by products of matrices for all branches of one length.

    Args:
        layout: which tokens belong together.
        only_last: whether the last token of each branch alone asks.
    """

    def __init__(self, layout: Layout, only_last: bool) -> None:
        self.groups, self.only_last = layout.groups, only_last

    def score(
        self,
        queries: Float[Tensor, "queries heads width"],
        keys: Float[Tensor, "tokens heads width"],
        into: Float[Tensor, "heads _ queries"],
    ) -> None:
        """Write products of queries and keys, (heads, widest, queries), where there are any."""
        for rows, part, many in self._parts():
            asking, known = _split(queries[rows], many), _split(keys[part], many)
            own = asking.transpose(1, 2) @ known.permute(0, 2, 3, 1)
            if not self.only_last:
                own = own + own.new_full(own.shape[2:], -torch.inf).triu(1)
            flat = own.permute(1, 3, 0, 2).flatten(2)
            into[:, : flat.shape[1], rows] = flat

    def values(
        self, chances: Float[Tensor, "heads _ queries"], values: Float[Tensor, "tokens heads width"]
    ) -> Float[Tensor, "queries heads width"]:
        """Values weighed by chances (heads, widest, queries), (queries, heads, width)."""
        found = []
        for rows, part, many in self._parts():
            said = _split(values[part], many)
            own = chances[:, : said.shape[1], rows]
            own = own.reshape(*own.shape[:2], many, -1).permute(2, 0, 3, 1)
            found.append((own @ said.transpose(1, 2)).transpose(1, 2).flatten(0, 1))
        return torch.cat(found)

    def _parts(self) -> Iterator[tuple[slice, slice, int]]:
        """For each length the rows of the queries, those of the tokens, and how many branches there are."""
        first, start = 0, 0
        for many, length in self.groups:
            asking = 1 if self.only_last else length
            part = slice(first, first := first + many * length)
            yield slice(start, start := start + many * asking), part, many


def _split(tensor: Float[Tensor, "_ heads any"], many: int) -> Float[Tensor, "{many} _ heads any"]:
    """(branches x tokens, heads, any) of equally long branches as (branches, tokens, heads, any)."""
    return tensor.reshape(many, -1, *tensor.shape[1:])

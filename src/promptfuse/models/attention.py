"""Attention of branches to their prefixes and to themselves, for a text tower's pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from promptfuse.models.prefix import Prefix, at_least_float32, ragged_positions, stack_keys

DENSE = {"cpu": 2**15}
"""Entries of a mask over all tokens up to which a masked product is faster than one branch by branch."""

DENSE_ELSEWHERE = 2**22
"""The same on other devices, where every operation costs a launch."""


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
class Layout:
    """New tokens of branches, one after the other, and what they attend to.

    Attributes:
        positions: (tokens,) their places in their rows.
        groups: runs of equally long branches: how many, how long; ascending in length.
        last: (branches,) where each branch ends.
        mask: (tokens, all prefixes' tokens + tokens), 0 where a token sees another and -inf elsewhere;
            None where that would be large.
        every: the sight of all tokens; None where there is a mask.
        ends: the sight of the branches' last tokens; None where there is a mask.
    """

    positions: Tensor
    groups: tuple[tuple[int, int], ...]
    last: Tensor
    mask: Tensor | None
    every: _Sight | None
    ends: _Sight | None

    @classmethod
    def of(
        cls,
        prefixes: Sequence[Prefix],
        origin: Sequence[int],
        shared: Sequence[int],
        lengths: Sequence[int],
        device: torch.device,
    ) -> Layout:
        """The layout of branches in ascending order of their new tokens' number."""
        count, seen, owner = torch.tensor(lengths), torch.tensor(shared), torch.tensor(origin)
        branch, positions = ragged_positions(seen, count)
        mask = _dense_mask(prefixes, owner[branch], seen[branch], branch, device)
        return cls(
            positions.to(device),
            tuple((len(list(group)), length) for length, group in groupby(lengths)),
            (count.cumsum(0) - 1).to(device),
            mask,
            _Sight.of(owner[branch], seen[branch], prefixes, device) if mask is None else None,
            _Sight.of(owner, seen, prefixes, device) if mask is None else None,
        )


def _dense_mask(
    prefixes: Sequence[Prefix], owner: Tensor, seen: Tensor, branch: Tensor, device: torch.device
) -> Tensor | None:
    """See ``Layout.mask``.

    Args:
        prefixes: what the branches go on from.
        owner: (tokens,) the number of each token's prefix.
        seen: (tokens,) how many of the prefix's tokens it sees.
        branch: (tokens,) its branch.
        device: where the mask is to be.
    """
    lengths = torch.tensor([len(prefix) for prefix in prefixes])
    if len(branch) * (int(lengths.sum()) + len(branch)) > DENSE.get(device.type, DENSE_ELSEWHERE):
        return None
    whose, place = (found.to(device) for found in ragged_positions(torch.zeros_like(lengths), lengths))
    owner, seen, branch = owner.to(device), seen.to(device), branch.to(device)
    before = (whose == owner[:, None]) & (place < seen[:, None])
    visible = torch.cat([before, (branch == branch[:, None]).tril()], 1)
    return torch.zeros(visible.shape, device=device).masked_fill_(~visible, -torch.inf)


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    prefixes: Sequence[Prefix],
    layer: int,
    layout: Layout,
    only_last: bool,
) -> Tensor:
    """Attention of branches to their prefix and to themselves.

    Args:
        queries: (tokens, heads, width), scaled; of the branches' last tokens with ``only_last``.
        keys: (tokens, heads, width).
        values: (tokens, heads, width).
        prefixes: what the branches go on from.
        layer: number of the layer, of whose keys and values of the prefixes.
        layout: which tokens belong together.
        only_last: whether the last token of each branch alone asks.

    Returns:
        (queries, heads, width).
    """
    if layout.mask is None:
        return _by_branch(queries, keys, values, _before(prefixes, layer, keys), layout, only_last)
    # One masked product over all tokens: wasteful, but few operations.
    known = [prefix for prefix in prefixes if len(prefix)]
    every = torch.cat([*(prefix.keys[layer] for prefix in known), keys.transpose(0, 1)], 1)
    said = torch.cat([*(prefix.values[layer] for prefix in known), values.transpose(0, 1)], 1)
    mask = layout.mask[layout.last] if only_last else layout.mask
    scores = at_least_float32(queries.transpose(0, 1) @ every.transpose(1, 2)) + mask
    return (scores.softmax(-1).to(values.dtype) @ said).transpose(0, 1)


def _before(prefixes: Sequence[Prefix], layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of prefixes in one layer, (prefixes, heads, longest, width) each."""
    blank = like.new_empty(like.shape[1], 0, like.shape[2])
    longest = max(map(len, prefixes))
    keys = [prefix.keys[layer] if len(prefix) else blank for prefix in prefixes]
    values = [prefix.values[layer] if len(prefix) else blank for prefix in prefixes]
    return stack_keys(keys, longest), stack_keys(values, longest)


def _by_branch(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    before: tuple[Tensor, Tensor],
    layout: Layout,
    only_last: bool,
) -> Tensor:
    """Attention branch by branch, where one mask would be large.

    Args:
        queries: see ``attend``.
        keys: see ``attend``.
        values: see ``attend``.
        before: keys and values of the prefixes, (prefixes, heads, longest, width).
        layout: see ``attend``.
        only_last: see ``attend``.
    """
    longest = before[0].shape[2]
    sight = layout.ends if only_last else layout.every
    assert sight is not None
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
    queries: Tensor, keys: Tensor, values: Tensor, layout: Layout, only_last: bool
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

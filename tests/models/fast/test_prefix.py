from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from promptfuse.models.branches import EMPTY, Branches, KVPrefix, common_length
from promptfuse.models.fast.prefix import PrefixCache, ragged_positions, stack_keys


def prefix(*ids: int) -> KVPrefix:
    keys = (torch.full((2, len(ids), 4), float(ids[-1])),)
    return KVPrefix(tuple(ids), keys, keys)


def test_the_longest_beginning_is_found() -> None:
    cache = PrefixCache(10**6)
    cache.hold([prefix(1), prefix(1, 2, 3), prefix(1, 2, 3, 4, 5), prefix(7)])
    assert cache.longest((1, 2, 3, 4)).ids == (1, 2, 3)
    assert cache.longest((1, 2)).ids == (1,)
    assert cache.longest((1, 2, 3, 4, 5)).ids == (1, 2, 3, 4, 5)
    assert cache.longest((2, 1)) is EMPTY
    assert cache.longest((1, 2, 3, 4), lambda found: len(found) < 2).ids == (1,)


def test_the_oldest_is_forgotten() -> None:
    cache = PrefixCache(3 * prefix(1).nbytes)
    cache.hold([prefix(1), prefix(2), prefix(3)])
    assert cache.longest((1,)).ids == (1,)
    cache.hold([prefix(4)])
    assert cache.longest((2,)) is EMPTY
    assert cache.longest((1,)).ids == (1,)
    assert cache.nbytes <= cache.limit
    cache.hold([prefix(*range(50))])
    assert len(cache) == 0


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_length(one: list[int], other: list[int]) -> None:
    found = common_length(one, other)
    assert one[:found] == other[:found]
    assert found == min(len(one), len(other)) or one[found] != other[found]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=9))
def test_ragged_positions(rows: list[tuple[int, int]]) -> None:
    starts, lengths = torch.tensor(rows).unbind(1)
    row, position = ragged_positions(starts, lengths)
    expected = [(index, start + step) for index, (start, length) in enumerate(rows) for step in range(length)]
    assert list(zip(row.tolist(), position.tolist(), strict=True)) == expected


def test_stacked_keys_are_padded_behind() -> None:
    found = stack_keys([torch.ones(2, 3, 4), torch.ones(2, 1, 4)], 3)
    assert found.shape == (2, 2, 3, 4)
    assert found[1, :, 1:].abs().sum() == 0
    assert found.sum() == 2 * 3 * 4 + 2 * 4


def test_a_part_of_branches_has_the_prefixes_that_it_needs() -> None:
    whole = Branches(
        (prefix(1), prefix(2), prefix(3)), (0, 2, 1, 2), (1, 1, 0, 1), torch.arange(8.0).view(4, 1, 2)
    )
    part = whole.part([3, 1])
    assert [item.ids for item in part.prefixes] == [(3,)]
    assert part.prefix_index == (0, 0)
    assert part.prefix_length == (1, 1)
    assert part.embeddings is not None
    assert part.embeddings[:, 0, 0].tolist() == [6.0, 2.0]

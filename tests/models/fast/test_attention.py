"""Attention of branches: both ways against a loop over queries, gradients included."""

import pytest
import torch

from promptfuse.models.branches import EMPTY, KVPrefix
from promptfuse.models.fast import attention, dense_attention
from promptfuse.models.fast.attention import Layout, attend, before, reading_order

HEADS, WIDTH = 2, 8
LIKE = torch.zeros(1)
CASES = {
    "one prefix": ([4], [0, 0, 0], [4, 4, 4], [1, 2, 2]),
    "several, some shared in part": ([3, 5, 2], [0, 2, 1, 1, 0], [3, 1, 5, 2, 1], [1, 1, 2, 3, 3]),
    "an empty one": ([0, 3], [0, 1, 0], [0, 3, 0], [2, 2, 6]),
    "nothing before": ([0], [0, 0], [0, 0], [3, 5]),
    "prefix by prefix": ([3, 5, 2], [0, 0, 1, 2, 2], [3, 2, 5, 2, 1], [1, 3, 2, 1, 2]),
    "prefix by prefix, one unused": ([3, 5, 2], [0, 0, 2, 2], [3, 3, 2, 2], [1, 3, 2, 2]),
    "long branches": ([6, 2], [1, 0], [2, 6], [5, 9]),
}


def problem(lengths, prefix_index, shared, fresh):
    torch.manual_seed(0)
    prefixes = [
        KVPrefix(
            tuple(range(length)),
            *[tuple(torch.randn(HEADS, length, WIDTH) for _ in range(2)) for _ in range(2)],
        )
        if length
        else EMPTY
        for length in lengths
    ]
    return prefixes, [torch.randn(sum(fresh), HEADS, WIDTH) for _ in range(3)]


def naive(queries, keys, values, prefixes, layer, prefix_index, shared, fresh):
    """Query by query."""
    rows, first = [], 0
    for number, seen, length in zip(prefix_index, shared, fresh, strict=True):
        before = prefixes[number]
        for step in range(length):
            own = slice(first, first + step + 1)
            known, said = keys[own].transpose(0, 1), values[own].transpose(0, 1)
            if len(before):
                known = torch.cat([before.keys[layer][:, :seen], known], 1)
                said = torch.cat([before.values[layer][:, :seen], said], 1)
            chances = (known @ queries[first + step][:, :, None])[:, :, 0].softmax(-1)
            rows.append((chances[:, None] @ said)[:, 0])
        first += length
    return torch.stack(rows)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", ["dense", "branch by branch", "in runs"])
@pytest.mark.parametrize("only_last", [False, True])
def test_it_is_what_a_loop_gives(case, way, only_last, monkeypatch):
    monkeypatch.setitem(dense_attention.DENSE, "cpu", 10**9 if way == "dense" else 0)
    monkeypatch.setattr(attention, "RUN", 0 if way == "in runs" else 10**9)
    lengths, prefix_index, shared, fresh = CASES[case]
    prefixes, parts = problem(lengths, prefix_index, shared, fresh)
    layout = Layout.of(prefixes, prefix_index, shared, fresh, LIKE)
    assert (layout.mask is not None) == (way == "dense")
    if layout.every is not None and len(lengths) > 1:
        assert bool(layout.every.runs) == (way == "in runs" and prefix_index == sorted(prefix_index))
    parts = [part.requires_grad_(True) for part in parts]
    queries, keys, values = parts
    expected = naive(queries, keys, values, prefixes, 1, prefix_index, shared, fresh)
    if only_last:
        expected, queries = expected[layout.last], queries[layout.last]
    found = attend(
        queries, keys, values, (before(prefixes, layout) or [(None, None)] * 2)[1], layout, only_last
    )
    assert torch.allclose(found, expected, atol=1e-5)
    weights = torch.randn_like(expected)
    for own, true in zip(
        torch.autograd.grad((found * weights).sum(), parts),
        torch.autograd.grad((expected * weights).sum(), parts),
        strict=True,
    ):
        assert torch.allclose(own, true, atol=1e-5)


def test_large_masks_are_not_made(monkeypatch):
    fresh = [1] * 100
    prefixes, _ = problem([5], [0], [5], [1])
    layout = Layout.of(prefixes, [0] * 100, [5] * 100, fresh, LIKE)
    assert layout.mask is not None
    assert layout.mask.shape == (100, 105)
    monkeypatch.setitem(dense_attention.DENSE, "cpu", 100 * 105 - 1)
    assert Layout.of(prefixes, [0] * 100, [5] * 100, fresh, LIKE).mask is None


def test_the_order_puts_short_branches_by_prefix_and_long_ones_by_length():
    lengths, prefix_index = [2, 1, 2, 1], [1, 0, 0, 1]
    assert reading_order(lengths, prefix_index, LIKE) == [1, 2, 3, 0]
    assert reading_order(lengths, prefix_index, LIKE.double()) == [1, 3, 2, 0]
    assert reading_order([*lengths, 9], [*prefix_index, 0], LIKE) == [1, 3, 2, 0, 4]

"""How maps act on whole texts, and that the way back is the exact adjoint."""

import pytest
import torch

from promptfuse.adapters.fit import embed_words, pad_words
from promptfuse.adapters.maps import Maps
from promptfuse.tproduct import t_product

D_A, D_B = 5, 7
N_A, N_B = [2, 1, 3, 1, 8, 0], [1, 1, 4, 5, 6, 2]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def maps():
    return Maps({n: random(D_A, D_B, n, seed=n) for n in range(1, 9)}, random(D_A, D_B, seed=99))


def explicit(maps, x, n_a, n_b):
    """``X * G`` segment by segment, by hand."""
    mapped, start = [], 0
    for count_a, count_b in zip(n_a, n_b, strict=True):
        n = max(count_a, count_b)
        tensor = x.new_zeros(len(x), x.shape[2], n)
        tensor[..., :count_a] = x[:, start : start + count_a].transpose(1, 2)
        mapped.append(t_product(tensor, maps.of_length(n)).transpose(1, 2)[:, :count_b])
        start += count_a
    return torch.cat(mapped, dim=1)


def assert_adjoint(maps, n_a, n_b, batch=3):
    x = random(batch, sum(n_a), D_A, seed=1).requires_grad_()
    gradient = random(batch, sum(n_b), D_B, seed=2)
    mapped = explicit(maps, x, n_a, n_b)
    torch.testing.assert_close(maps.push(x, n_a, n_b), mapped)
    (expected,) = torch.autograd.grad(mapped, x, gradient)
    torch.testing.assert_close(maps.pull(gradient, n_a, n_b), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", range(1, 9))
def test_pull_is_autograd_through_the_explicit_t_product(maps, n):
    for n_a, n_b in ([n, n], [n, n]), ([n, n, n], [1, n, max(1, n - 1)]), ([1, n, max(1, n - 2)], [n, n, n]):
        assert_adjoint(maps, n_a, n_b)


def test_pull_is_the_adjoint_for_texts_of_mixed_segments(maps):
    assert_adjoint(maps, N_A, N_B)
    assert_adjoint(maps, [11, 1], [3, 12])


def test_in_single_precision_to_1e_5(maps):
    x, gradient = random(2, sum(N_A), D_A).float().requires_grad_(), random(2, sum(N_B), D_B).float()
    (expected,) = torch.autograd.grad(explicit_float(maps, x), x, gradient)
    pulled = maps.pull(gradient, N_A, N_B)
    assert pulled.dtype == torch.float32
    torch.testing.assert_close(pulled, expected, rtol=1e-5, atol=1e-5)


def explicit_float(maps, x):
    single = Maps({n: g.float() for n, g in maps.by_length.items()}, maps.positional.float())
    return explicit(single, x, N_A, N_B)


def test_trap_1_a_word_gets_the_gradient_of_its_own_tokens(maps):
    """The gradient at B's tokens of word k moves A's tokens of word k and no others."""
    starts_a = [sum(N_A[:k]) for k in range(len(N_A) + 1)]
    starts_b = [sum(N_B[:k]) for k in range(len(N_B) + 1)]
    gradient = random(2, sum(N_B), D_B)
    before = maps.pull(gradient, N_A, N_B)
    for k in range(len(N_A)):
        changed = gradient.clone()
        changed[:, starts_b[k] : starts_b[k + 1]] += 1.0
        moved = (maps.pull(changed, N_A, N_B) - before).abs().sum((0, 2)) > 1e-9
        own = torch.zeros(sum(N_A), dtype=torch.bool)
        own[starts_a[k] : starts_a[k + 1]] = True
        assert torch.equal(moved, own)


@pytest.mark.parametrize("n", [3, 4, 5])
def test_trap_2_the_way_back_reverses_the_tubes(maps, n):
    gradient = random(1, n, D_B)
    unreversed = t_product(gradient.transpose(1, 2)[:, None], maps.of_length(n).transpose(0, 1))[:, 0]
    assert not torch.allclose(maps.pull(gradient, [n], [n]), unreversed.transpose(1, 2))


@pytest.mark.parametrize(("n_a", "n_b"), [(1, 3), (3, 1), (2, 4), (4, 2)])
def test_trap_3_the_map_is_that_of_the_longer_side(maps, n_a, n_b):
    """As it was fitted: not by A's count on one way and B's on the other."""
    only = Maps({max(n_a, n_b): maps.of_length(max(n_a, n_b))}, torch.full((D_A, D_B), float("nan")))
    x, gradient = random(1, n_a, D_A), random(1, n_b, D_B)
    assert torch.equal(only.push(x, [n_a], [n_b]), maps.push(x, [n_a], [n_b]))
    assert torch.equal(only.pull(gradient, [n_a], [n_b]), maps.pull(gradient, [n_a], [n_b]))


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_trap_4_padding_is_on_the_right_in_fitting_and_in_use(n):
    table = random(10, D_A)
    stacked = embed_words(table, pad_words([[4], list(range(n))], n))
    assert torch.equal(stacked[0, :, 0], table[4])
    assert not stacked[0, :, 1:].any()
    assert torch.equal(stacked[1], table[:n].T)
    # A map that is zero but for the identity in front leaves every token at its place.
    identity = torch.zeros(D_A, D_A, n, dtype=torch.float64)
    identity[..., 0] = torch.eye(D_A)
    x = table[4][None, None]
    mapped = Maps({n: identity}, torch.zeros(D_A, D_A)).push(x, [1], [n])
    torch.testing.assert_close(mapped, stacked[:1].transpose(1, 2))


def test_trap_5_words_longer_than_the_largest_map_share_the_positional_one(maps):
    x, gradient = random(2, 11, D_A), random(2, 11, D_B)
    torch.testing.assert_close(maps.push(x, [11], [11]), x @ maps.positional)
    torch.testing.assert_close(maps.pull(gradient, [11], [11]), gradient @ maps.positional.T)
    assert torch.equal(maps.of_length(20), maps.of_length(20))


@pytest.mark.parametrize(
    ("shape", "n_a", "n_b"), [((1, 3, D_B), [1], [1, 2]), ((1, 4, D_B), [1, 1], [1, 2]), ((3, D_B), [1], [3])]
)
def test_counts_that_do_not_fit_are_refused(maps, shape, n_a, n_b):
    with pytest.raises(ValueError, match=r"segments|sub-tokens"):
        maps.pull(torch.zeros(shape), n_a, n_b)

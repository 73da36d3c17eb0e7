"""Streamed moments against dense least squares, shards against one pass, ridges against brute force."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from promptfuse.adapters.moments import Moments
from promptfuse.adapters.ridge import held_out_errors
from promptfuse.errors import AdapterError
from promptfuse.tproduct import t_pinv, t_product, t_solve, t_transpose

D_A, D_B, WORDS = 5, 4, 60
RCOND = 1e-12


def pairs(n, seed=0, words=WORDS):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(words, D_A, n, generator=generator)
    y = torch.randn(words, D_B, n, generator=generator) + 0.5 * x[:, :D_B]
    return x, y, torch.rand(words, generator=generator) + 0.1


def moments_of(x, y, weights):
    moments = Moments(x.shape[1], y.shape[1], x.shape[2])
    for part in torch.arange(len(x)).split(17):
        moments.update(x[part], y[part], weights[part])
    return moments


def dense_ridge(x, y, weights, ridge):
    """The textbook way: one row of the block-circulant matrix for each word and Fourier-free unknowns."""
    n = x.shape[-1]
    root = weights.double().sqrt()[:, None, None]
    a, b = (t.double() * root for t in (x, y))
    blocks = torch.cat([torch.cat([a[..., (r - s) % n] for s in range(n)], 1) for r in range(n)])
    target = torch.cat([b[..., r] for r in range(n)])
    gram = blocks.T @ blocks + ridge * torch.eye(D_A * n, dtype=torch.float64)
    flat = torch.linalg.solve(gram, blocks.T @ target)
    return torch.stack(flat.split(D_A), dim=-1)


def squared_error(x, y, weights, g):
    return float((weights[:, None, None] * (t_product(x.double(), g) - y) ** 2).sum())


@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize("ridge", [0.0, 0.3, 20.0])
def test_streamed_is_dense_least_squares(n, ridge):
    x, y, weights = pairs(n)
    solved = moments_of(x, y, weights).solve(ridge, RCOND)
    assert solved.shape == (D_A, D_B, n)
    torch.testing.assert_close(solved, dense_ridge(x, y, weights, ridge), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_streamed_is_the_algebra_on_whole_tensors(n):
    x, y, _ = (t.double() for t in pairs(n))
    moments = moments_of(x, y, torch.ones(len(x)))
    gram, cross = (t_product(t_transpose(x), t) for t in (x, y))
    torch.testing.assert_close(moments.solve(0.7, RCOND), t_solve(gram, cross, 0.7))
    torch.testing.assert_close(moments.solve(0.0, RCOND), t_product(t_pinv(x), y))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_missing_rank_gives_the_smallest_map(n):
    x, y, weights = pairs(n, words=3)
    root = weights.double().sqrt()[:, None, None]
    best = t_product(t_pinv(x.double() * root, rcond=1e-6), y.double() * root)
    torch.testing.assert_close(moments_of(x, y, weights).solve(0.0, RCOND), best, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_shards_go_through_files(n, tmp_path):
    x, y, weights = pairs(n)
    for k, part in enumerate((slice(0, 20), slice(20, None))):
        moments = moments_of(x[part], y[part], weights[part])
        save_file(moments.to_tensors(), tmp_path / f"{k}.safetensors")
    one, other = (Moments.from_tensors(load_file(tmp_path / f"{k}.safetensors")) for k in range(2))
    whole, merged = moments_of(x, y, weights), one + other
    assert (merged.words, merged.weight) == (whole.words, pytest.approx(whole.weight))
    torch.testing.assert_close(merged.solve(0.3, RCOND), whole.solve(0.3, RCOND))
    assert merged.variance() == pytest.approx(whole.variance())


def test_tensors_that_are_no_moments_are_refused_in_one_line():
    tensors = moments_of(*pairs(3)).to_tensors()
    cut = {**tensors, "slices.1.0": tensors["slices.1.0"][:2]}
    for broken in ({}, {key: value for key, value in tensors.items() if key != "slices.1.1"}, cut):
        with pytest.raises(AdapterError, match="not the moments of a fit"):
            Moments.from_tensors(broken)


def test_no_words_give_the_zero_map():
    assert torch.equal(Moments(3, 2, 4).solve(0.0, RCOND), torch.zeros(3, 2, 4, dtype=torch.float64))


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_merged_shards_are_a_single_pass(n):
    x, y, weights = pairs(n)
    whole = moments_of(x, y, weights)
    shards = moments_of(x[:20], y[:20], weights[:20]) + moments_of(x[20:], y[20:], weights[20:])
    assert shards.words == whole.words
    assert shards.weight == pytest.approx(whole.weight)
    assert shards.power_b == pytest.approx(whole.power_b)
    for one, other in zip(shards.grams + shards.crosses, whole.grams + whole.crosses, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(shards.sum_b, whole.sum_b)


def test_moments_of_other_shapes_cannot_be_added():
    with pytest.raises(ValueError, match="same widths"):
        Moments(3, 2, 4) + Moments(3, 2, 5)


def test_weights_count_as_repetitions():
    x, y, _ = pairs(3)
    times = torch.arange(len(x)) % 3 + 1
    repeated = moments_of(
        x.repeat_interleave(times, 0), y.repeat_interleave(times, 0), torch.ones(times.sum())
    )
    weighted = moments_of(x, y, times)
    torch.testing.assert_close(weighted.solve(0.1, RCOND), repeated.solve(0.1, RCOND))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_errors_and_variance_come_from_the_moments_alone(n):
    x, y, weights = pairs(n)
    moments = moments_of(x, y, weights)
    g = torch.randn(D_A, D_B, n, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    assert moments.squared_error(g) == pytest.approx(squared_error(x, y, weights, g))
    mean = (weights[:, None, None] * y).sum(0) / weights.sum()
    assert moments.variance() == pytest.approx(
        float((weights[:, None, None] * (y - mean) ** 2).sum()), rel=1e-5
    )


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_positions_taken_apart_without_a_second_pass(n):
    x, y, weights = pairs(n)
    apart = moments_of(x, y, weights).positional()
    rows_x, rows_y = (t.transpose(1, 2).reshape(-1, t.shape[1], 1) for t in (x, y))
    streamed = moments_of(rows_x, rows_y, weights.repeat_interleave(n))
    assert apart.words == streamed.words
    assert apart.weight == pytest.approx(streamed.weight)
    torch.testing.assert_close(apart.grams[0], streamed.grams[0])
    torch.testing.assert_close(apart.crosses[0], streamed.crosses[0])
    torch.testing.assert_close(apart.sum_b, streamed.sum_b)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_every_ridge_is_priced_without_forming_its_map(n):
    fitted, held_out = moments_of(*pairs(n, seed=1, words=4)), moments_of(*pairs(n, seed=2))
    ridges = [0.0, 0.01, 1.0, 30.0]
    brute = [held_out.squared_error(fitted.solve(ridge, RCOND)) for ridge in ridges]
    assert held_out_errors(fitted, held_out, ridges, RCOND) == pytest.approx(brute)


def test_the_scale_is_the_mean_eigenvalue_of_the_gram():
    x, y, weights = pairs(3)
    power = (weights[:, None, None] * x.square()).sum()
    assert moments_of(x, y, weights).scale() == pytest.approx(float(power) / D_A, rel=1e-5)


@pytest.mark.parametrize("width", [5, 300, 513])
@pytest.mark.parametrize("n", [1, 3, 4])
def test_grams_and_crosses_are_the_products_by_the_book(width, n):
    """The halves that are not computed, and the complex products that are made of real ones."""
    generator = torch.Generator().manual_seed(width + n)
    x = torch.randn(40, width, n, generator=generator, dtype=torch.float64)
    y = torch.randn(40, 7, n, generator=generator, dtype=torch.float64)
    weights = torch.rand(40, generator=generator, dtype=torch.float64)
    moments = Moments(width, 7, n)
    moments.update(x, y, weights)
    for s, (gram, cross) in enumerate(zip(moments.grams, moments.crosses, strict=True)):
        a, b = (torch.fft.fft(t)[..., s] for t in (x, y))
        left = (a * weights[:, None]).mH
        torch.testing.assert_close(gram.to(left.dtype), left @ a)
        torch.testing.assert_close(cross.to(left.dtype), left @ b)

"""The t-product algebra against its identities and against dense block-circulant matrices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from promptfuse.tproduct import from_slices, t_identity, t_pinv, t_product, t_solve, t_transpose, to_slices

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
algebra = settings(max_examples=40, deadline=None, derandomize=True)


def block_circulant(a: Tensor) -> Tensor:
    """The dense matrix of a t-matrix, (..., N n, d n): block (r, s) is frontal slice (r - s) mod n."""
    n = a.shape[-1]
    rows = [torch.cat([a[..., (r - s) % n] for s in range(n)], dim=-1) for r in range(n)]
    return torch.cat(rows, dim=-2)


def first_column(dense: Tensor, rows: int, n: int) -> Tensor:
    """The t-matrix of a block-circulant matrix: its first block column, (..., rows, d, n)."""
    columns = dense.shape[-1] // n
    return torch.stack([dense[..., r * rows : (r + 1) * rows, :columns] for r in range(n)], dim=-1)


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(a: Tensor, b: Tensor) -> None:
    double = a.dtype in (torch.float64, torch.complex128)
    tolerance = 1e-8 if double else 2e-3
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


sizes = st.integers(1, 4)
tubes = st.integers(1, 5)
seeds = st.integers(0, 2**31)
dtypes = st.sampled_from(DTYPES)
batches = st.sampled_from([(), (2,), (2, 3)])


@algebra
@given(batches, sizes, sizes, sizes, tubes, seeds, dtypes)
def test_product_is_that_of_block_circulant_matrices(batch, rows, inner, columns, n, seed, dtype):
    a = random(*batch, rows, inner, n, seed=seed, dtype=dtype)
    b = random(*batch, inner, columns, n, seed=seed + 1, dtype=dtype)
    product = t_product(a, b)
    assert product.shape == (*batch, rows, columns, n)
    assert product.dtype == dtype
    close(block_circulant(product), block_circulant(a) @ block_circulant(b))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_product_is_the_circular_convolution_of_frontal_slices(n):
    a, b = random(3, 2, n, seed=0), random(2, 4, n, seed=1)
    for r in range(n):
        convolved = sum(a[..., (r - s) % n] @ b[..., s] for s in range(n))
        close(t_product(a, b)[..., r], convolved)


@algebra
@given(sizes, sizes, sizes, sizes, tubes, seeds, dtypes)
def test_product_is_associative(p, q, r, s, n, seed, dtype):
    a, b, c = (
        random(*shape, n, seed=seed + k, dtype=dtype) for k, shape in enumerate([(p, q), (q, r), (r, s)])
    )
    close(t_product(t_product(a, b), c), t_product(a, t_product(b, c)))


@algebra
@given(sizes, sizes, sizes, tubes, seeds, dtypes)
def test_product_is_distributive_from_both_sides(p, q, r, n, seed, dtype):
    a, b = (random(p, q, n, seed=seed + k, dtype=dtype) for k in range(2))
    c, d = (random(q, r, n, seed=seed + 2 + k, dtype=dtype) for k in range(2))
    close(t_product(a + b, c), t_product(a, c) + t_product(b, c))
    close(t_product(a, c + d), t_product(a, c) + t_product(a, d))


@algebra
@given(batches, sizes, sizes, tubes, seeds, dtypes)
def test_identity_changes_nothing(batch, rows, columns, n, seed, dtype):
    a = random(*batch, rows, columns, n, seed=seed, dtype=dtype)
    close(t_product(a, t_identity(columns, n, dtype=dtype)), a)
    close(t_product(t_identity(rows, n, dtype=dtype), a), a)


@algebra
@given(batches, sizes, sizes, sizes, tubes, seeds, dtypes)
def test_transpose_is_an_involution_that_reverses_products(batch, p, q, r, n, seed, dtype):
    a = random(*batch, p, q, n, seed=seed, dtype=dtype)
    b = random(*batch, q, r, n, seed=seed + 1, dtype=dtype)
    assert torch.equal(t_transpose(t_transpose(a)), a)
    close(t_transpose(t_product(a, b)), t_product(t_transpose(b), t_transpose(a)))
    close(block_circulant(t_transpose(a)), block_circulant(a).mH)


@pytest.mark.parametrize("n", range(1, 9))
def test_trap_2_the_transpose_reverses_the_tubes(n):
    """Transposed slices alone are the adjoint for n <= 2 and wrong from n = 3."""
    x, g, y = random(3, 2, n, seed=0), random(2, 4, n, seed=1), random(3, 4, n, seed=2)
    inner = (t_product(x, g) * y).sum()
    close((x * t_product(y, t_transpose(g))).sum(), inner)
    unreversed = (x * t_product(y, g.transpose(-3, -2))).sum()
    assert torch.isclose(unreversed, inner) == (n <= 2)


def assert_moore_penrose(a: Tensor, inverse: Tensor) -> None:
    forth, back = t_product(a, inverse), t_product(inverse, a)
    close(t_product(forth, a), a)
    close(t_product(back, inverse), inverse)
    close(t_transpose(forth), forth)
    close(t_transpose(back), back)


@algebra
@given(batches, sizes, sizes, tubes, seeds, st.sampled_from([torch.float64, torch.complex128]))
def test_pinv_meets_the_moore_penrose_conditions(batch, rows, columns, n, seed, dtype):
    a = random(*batch, rows, columns, n, seed=seed, dtype=dtype)
    assert_moore_penrose(a, t_pinv(a, rcond=1e-10))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_pinv_is_that_of_the_block_circulant_matrix(dtype, n):
    a = random(2, 4, 3, n, seed=n, dtype=dtype)
    close(block_circulant(t_pinv(a)), torch.linalg.pinv(block_circulant(a)))


@algebra
@given(sizes, sizes, tubes, seeds, st.sampled_from([torch.float64, torch.complex128]))
def test_pinv_of_rank_deficient_tensors(rows, columns, n, seed, dtype):
    thin = random(rows, 1, n, seed=seed, dtype=dtype)
    a = t_product(thin, random(1, columns, n, seed=seed + 1, dtype=dtype))
    inverse = t_pinv(a, rcond=1e-10)
    assert_moore_penrose(a, inverse)
    dense = torch.linalg.pinv(block_circulant(a), rtol=1e-10)
    torch.testing.assert_close(first_column(dense, columns, n), inverse, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pinv_of_zero_is_zero(dtype):
    a = torch.zeros(2, 3, 4, 5, dtype=dtype)
    assert torch.equal(t_pinv(a), torch.zeros(2, 4, 3, 5, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [3, 4, 5])
def test_trap_12_the_pinv_leaves_zero_slices_in_their_place(dtype, n):
    """A Fourier slice of zeros at the front, in the middle or at the end has the zero inverse there."""
    slices = to_slices(random(4, 3, n, seed=3, dtype=dtype))
    for zero in range(len(slices)):
        kept = slices.clone()
        kept[zero] = 0
        a = from_slices(kept, n, dtype)
        found = to_slices(t_pinv(a))
        close(found[zero], torch.zeros_like(found[zero]))
        for other in set(range(len(slices))) - {zero}:
            close(found[other], torch.linalg.pinv(kept[other]))
        close(block_circulant(t_pinv(a)), torch.linalg.pinv(block_circulant(a), rtol=1e-5))


def test_pinv_does_not_blow_up_a_slice_that_is_zero_up_to_rounding():
    slices = to_slices(random(4, 3, 5, seed=0))
    slices[1] *= 1e-17
    inverse = t_pinv(from_slices(slices, 5, torch.float64))
    assert inverse.abs().max() < 100


@algebra
@given(sizes, sizes, tubes, seeds, dtypes, st.sampled_from([0.1, 1.0]))
def test_solve_is_ridge_regression_of_block_circulant_matrices(columns, outputs, n, seed, dtype, ridge):
    a = random(6, columns, n, seed=seed, dtype=dtype)
    b = random(6, outputs, n, seed=seed + 1, dtype=dtype)
    solved = t_solve(t_product(t_transpose(a), a), t_product(t_transpose(a), b), ridge)
    dense = block_circulant(a)
    gram = dense.mH @ dense + ridge * torch.eye(columns * n, dtype=dtype)
    close(block_circulant(solved), torch.linalg.solve(gram, dense.mH @ block_circulant(b)))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_solve_without_ridge_is_the_pinv_also_where_rank_is_missing(n):
    a = t_product(random(6, 2, n, seed=0), random(2, 4, n, seed=1))
    b = random(6, 3, n, seed=2)
    solved = t_solve(t_product(t_transpose(a), a), t_product(t_transpose(a), b), rcond=1e-10)
    close(solved, t_product(t_pinv(a, rcond=1e-8), b))


def test_solve_refuses_a_negative_ridge():
    with pytest.raises(ValueError, match="ridge"):
        t_solve(t_identity(2, 2), t_identity(2, 2), ridge=-1.0)


@pytest.mark.parametrize("shapes", [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (3, 2, 5))])
def test_product_refuses_shapes_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match="no t-product of shapes"):
        t_product(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_autograd_passes_through_every_operation(dtype, n):
    a = random(2, 3, 2, n, seed=0, dtype=dtype).requires_grad_()
    b = random(2, 2, n, seed=1, dtype=dtype).requires_grad_()
    assert torch.autograd.gradcheck(t_product, (a, b))
    assert torch.autograd.gradcheck(t_transpose, (a,))
    assert torch.autograd.gradcheck(t_pinv, (a,))
    assert torch.autograd.gradcheck(
        lambda x: t_solve(t_product(t_transpose(x), x), t_product(t_transpose(x), 2 * x), 0.1), (a,)
    )


def test_types_are_promoted_and_batches_broadcast():
    product = t_product(random(5, 1, 2, 3, 4, seed=0, dtype=torch.float32), random(6, 3, 2, 4, seed=1))
    assert product.shape == (5, 6, 2, 2, 4)
    assert product.dtype == torch.float64


@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_tensors_have_products(dtype):
    a, b = torch.zeros(0, 3, 4, dtype=dtype), torch.zeros(3, 2, 4, dtype=dtype)
    assert t_product(a, b).shape == (0, 2, 4)
    assert torch.equal(t_product(t_transpose(a), a), torch.zeros(3, 3, 4, dtype=dtype))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gpu_gives_what_the_cpu_gives(dtype):
    a, b = random(5, 3, 4, seed=0, dtype=dtype), random(3, 2, 4, seed=1, dtype=dtype)
    close(t_product(a.cuda(), b.cuda()).cpu(), t_product(a, b))
    close(t_pinv(a.cuda()).cpu(), t_pinv(a))

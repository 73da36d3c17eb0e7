"""The algebra of third-order tensors under the t-product.

A *t-matrix* is a tensor of shape ``(..., N, d, n)``: N rows and d columns whose entries are *tubes* of
length n, stored last. Tubes multiply by circular convolution, so a discrete Fourier transform along them
turns every operation of this module into the ordinary matrix operation on each Fourier slice, and a
t-matrix behaves as the block-circulant matrix of its frontal slices does. The transform of real data is
conjugate symmetric: ``n // 2 + 1`` slices carry everything, and no more are computed.

All functions are pure, take any batch dimensions (broadcast as in ``torch.matmul``), real and complex
tensors of single and double precision on any device, and autograd passes through them.

Sources: Kilmer and Martin, "Factorization strategies for third-order tensors" (2011), for the algebra;
Williams and Kolter, arXiv 2408.04816, section 3, for its use between token embeddings.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Num
from torch import Tensor


def to_slices(a: Num[Tensor, "*batch N d n"]) -> Complex[Tensor, "*batch slices N d"]:
    """Fourier slices of a t-matrix.

    Args:
        a: (..., N, d, n).

    Returns:
        (..., slices, N, d), complex; ``n // 2 + 1`` slices where ``a`` is real, n where it is complex.
    """
    # The transforms refuse tensors without elements, and a batch may well be empty.
    if a.numel() == 0:
        count = a.shape[-1] if a.is_complex() else a.shape[-1] // 2 + 1
        return a.new_zeros(*a.shape[:-3], count, *a.shape[-3:-1], dtype=a.dtype.to_complex())
    transformed: Tensor = torch.fft.fft(a) if a.is_complex() else torch.fft.rfft(a)
    return torch.movedim(transformed, -1, -3)


def from_slices(
    slices: Complex[Tensor, "*batch slices N d"], n: int, dtype: torch.dtype
) -> Num[Tensor, "*batch N d {n}"]:
    """The t-matrix of given Fourier slices; the inverse of `to_slices`.

    Args:
        slices: (..., slices, N, d), complex.
        n: length of the tubes, which the number of slices of a real tensor leaves open.
        dtype: type of the result; says whether the slices are those of a real or of a complex tensor.

    Returns:
        (..., N, d, n).
    """
    tubes = torch.movedim(slices, -3, -1)
    if tubes.numel() == 0:
        return torch.zeros(*tubes.shape[:-1], n, dtype=dtype, device=tubes.device)
    transformed: Tensor = torch.fft.ifft(tubes, n=n) if dtype.is_complex else torch.fft.irfft(tubes, n=n)
    return transformed.to(dtype)


def t_product(a: Num[Tensor, "*_ N d n"], b: Num[Tensor, "*_ e k m"]) -> Num[Tensor, "*_ N k n"]:
    """The t-product: ``(a * b)_r = sum_s a_{(r - s) mod n} b_s`` over frontal slices.

    Args:
        a: (..., N, d, n).
        b: (..., d, k, n).

    Returns:
        (..., N, k, n), of the promoted type.

    Raises:
        ValueError: if the tubes have different lengths or the inner dimensions differ.
    """
    if a.shape[-1] != b.shape[-1] or a.shape[-2] != b.shape[-3]:
        raise ValueError(f"no t-product of shapes {tuple(a.shape)} and {tuple(b.shape)}")
    dtype = torch.promote_types(a.dtype, b.dtype)
    return from_slices(to_slices(a.to(dtype)) @ to_slices(b.to(dtype)), a.shape[-1], dtype)


def t_transpose(a: Num[Tensor, "*batch N d n"]) -> Num[Tensor, "*batch d N n"]:
    """The (conjugate) t-transpose: every frontal slice transposed, and slices 2 to n reversed.

    The reversal makes it the adjoint: ``<x * g, y> = <x, y * g'>``. Without it that holds for n <= 2 only.

    Args:
        a: (..., N, d, n).

    Returns:
        (..., d, N, n).
    """
    transposed = a.transpose(-3, -2).conj()
    return transposed.flip(-1).roll(1, -1)


def t_identity(
    d: int, n: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Num[Tensor, "{d} {d} {n}"]:
    """The identity of the t-product: first frontal slice I, the rest 0.

    Returns:
        (d, d, n).
    """
    identity = torch.zeros(d, d, n, dtype=dtype, device=device)
    identity[..., 0] = torch.eye(d, dtype=dtype, device=device)
    return identity


def t_pinv(a: Num[Tensor, "*batch N d n"], rcond: float | None = None) -> Num[Tensor, "*batch d N n"]:
    """The Moore-Penrose inverse under the t-product, slice by slice in the Fourier domain.

    The cut-off is relative to the largest singular value of *all* slices: that is what the pseudo-inverse
    of the block-circulant matrix does, and it keeps a slice that is zero up to rounding from being blown
    up. Every slice stays in its place.

    Args:
        a: (..., N, d, n).
        rcond: singular values up to ``rcond`` times the largest count as zero; by default the larger side
            of the block-circulant matrix times the machine epsilon.

    Returns:
        (..., d, N, n).
    """
    slices = to_slices(a)
    cutoff = _cutoff(torch.linalg.svdvals(slices.detach()), a, rcond)
    inverse = torch.linalg.pinv(slices, atol=cutoff, rtol=torch.zeros_like(cutoff))
    return from_slices(inverse, a.shape[-1], a.dtype)


def t_solve(
    gram: Num[Tensor, "*batch d d n"],
    cross: Num[Tensor, "*batch d k n"],
    ridge: float = 0.0,
    rcond: float | None = None,
) -> Num[Tensor, "*batch d k n"]:
    """Regularised least squares from moments.

    With ``gram = a' * a`` and ``cross = a' * b`` this is the t-matrix x that minimises
    ``|a * x - b|^2 + ridge |x|^2``; with ``ridge = 0``, the one of them with the smallest norm.

    Args:
        gram: (..., d, d, n), equal to its t-transpose.
        cross: (..., d, k, n).
        ridge: weight of the penalty, not negative.
        rcond: eigenvalues of ``gram + ridge`` up to ``rcond`` times the largest count as zero. They are
            *squared* singular values of ``a``. By default the larger side of the block-circulant matrix
            times the machine epsilon.

    Returns:
        (..., d, k, n).

    Raises:
        ValueError: if ``ridge`` is negative.
    """
    if ridge < 0:
        raise ValueError(f"the ridge must not be negative, got {ridge}")
    slices = to_slices(gram)
    slices = slices + ridge * torch.eye(slices.shape[-1], dtype=slices.dtype, device=slices.device)
    cutoff = _cutoff(torch.linalg.eigvalsh(slices.detach()), gram, rcond)
    inverse = torch.linalg.pinv(slices, atol=cutoff, rtol=torch.zeros_like(cutoff), hermitian=True)
    return from_slices(inverse @ to_slices(cross), gram.shape[-1], gram.dtype)


def _cutoff(
    spectrum: Num[Tensor, "*batch slices values"], a: Num[Tensor, "*batch N d n"], rcond: float | None
) -> Num[Tensor, "*batch slices"]:
    """Absolute cut-offs, (..., slices), from the spectra (..., slices, values) of the slices of ``a``."""
    if rcond is None:
        rcond = max(a.shape[-3:-1]) * a.shape[-1] * torch.finfo(spectrum.dtype).eps
    largest = spectrum.abs().flatten(-2).amax(-1, keepdim=True)
    return (rcond * largest).expand(spectrum.shape[:-1])

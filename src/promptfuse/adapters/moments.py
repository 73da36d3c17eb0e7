"""Streamed moments: everything a least-squares fit under the t-product needs, whatever the corpus size.

For words x_w (d_A x n) and y_w (d_B x n) with weights omega_w, the map that minimises
``sum_w omega_w |x_w * G - y_w|^2 + ridge |G|^2`` depends on the words only through two sums per Fourier
slice, the *gram* ``sum omega x^H x`` and the *cross* ``sum omega x^H y``. They are added up in double
precision, batch after batch, and sums of shards add up to the sums of the whole.

Source: Williams and Kolter, arXiv 2408.04816, section 3.1, gives the least-squares problem; that it can be
streamed is our addition.
"""

from __future__ import annotations

import torch
from torch import Tensor

from promptfuse.tproduct import from_slices


class Moments:
    """Weighted second moments of pairs of embeddings of n sub-tokens, per Fourier slice.

    The first slice, and for even n the middle one, of real data are real and kept so: it is a quarter of
    the work.

    Args:
        d_a: width of model A's embeddings.
        d_b: width of model B's.
        n: sub-tokens, the length of the tubes.
        device: where the sums are kept; it must know double precision.

    Attributes:
        grams: for each of the ``n // 2 + 1`` slices (d_A, d_A).
        crosses: for each slice (d_A, d_B).
        words: pairs seen.
        weight: sum of their weights.
        sum_b: (d_B, n), weighted sum of B's embeddings.
        power_b: weighted sum of their squared norms.
    """

    def __init__(self, d_a: int, d_b: int, n: int, device: torch.device | str = "cpu") -> None:
        self.n = n
        kinds = [torch.float64 if self.is_real(s) else torch.complex128 for s in range(n // 2 + 1)]
        self.grams = [torch.zeros(d_a, d_a, dtype=kind, device=device) for kind in kinds]
        self.crosses = [torch.zeros(d_a, d_b, dtype=kind, device=device) for kind in kinds]
        self.words = 0
        self.weight = 0.0
        self.sum_b = torch.zeros(d_b, n, dtype=torch.float64, device=device)
        self.power_b = 0.0

    def is_real(self, s: int) -> bool:
        """Whether slice s of real data is real."""
        return s == 0 or 2 * s == self.n

    def share(self, s: int) -> float:
        """Weight of slice s in a squared norm over all n slices, by Parseval's theorem.

        Slices that are not real stand for their conjugates, which are not stored, as well.
        """
        return (1.0 if self.is_real(s) else 2.0) / self.n

    def update(self, x: Tensor, y: Tensor, weights: Tensor) -> None:
        """Add a batch of words.

        Args:
            x: (N, d_A, n), A's embeddings, zero behind each word's last sub-token.
            y: (N, d_B, n), B's.
            weights: (N,), not negative.
        """
        device = self.sum_b.device
        x, y, weights = (t.to(device=device, dtype=torch.float64) for t in (x, y, weights))
        x_hat, y_hat = torch.fft.rfft(x), torch.fft.rfft(y)
        for s in range(len(self.grams)):
            if self.is_real(s):
                a, b = x_hat[..., s].real.contiguous(), y_hat[..., s].real
                weighted = a * weights[:, None]
                self.grams[s] += _symmetric(weighted, a)
                self.crosses[s] += weighted.T @ b
            else:
                gram, cross = _complex_products(x_hat[..., s], y_hat[..., s], weights)
                self.grams[s] += gram
                self.crosses[s] += cross
        self.words += len(x)
        self.weight += float(weights.sum())
        self.sum_b += torch.tensordot(weights, y, dims=1)
        self.power_b += float(weights @ y.square().sum((1, 2)))

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of words together, such as those of two shards."""
        d_a, d_b = self.crosses[0].shape
        if other.n != self.n or other.crosses[0].shape != (d_a, d_b):
            raise ValueError("only moments of the same widths and number of sub-tokens can be added")
        total = Moments(d_a, d_b, self.n, self.sum_b.device)
        for part in (self, other):
            total.grams = [old + new for old, new in zip(total.grams, part.grams, strict=True)]
            total.crosses = [old + new for old, new in zip(total.crosses, part.crosses, strict=True)]
            total.words += part.words
            total.weight += part.weight
            total.sum_b += part.sum_b
            total.power_b += part.power_b
        return total

    def positional(self) -> Moments:
        """The moments, with n = 1, of the same words taken apart: a pair for each sub-token position.

        By Parseval's theorem the sums over positions are means over slices, so nothing has to be
        streamed a second time.
        """
        d_a, d_b = self.crosses[0].shape
        apart = Moments(d_a, d_b, 1, self.sum_b.device)
        for s in range(len(self.grams)):
            apart.grams[0] += self.share(s) * self.grams[s].real
            apart.crosses[0] += self.share(s) * self.crosses[s].real
        apart.words = self.words * self.n
        apart.weight = self.weight * self.n
        apart.sum_b = self.sum_b.sum(1, keepdim=True)
        apart.power_b = self.power_b
        return apart

    def scale(self) -> float:
        """Mean eigenvalue of the gram over all slices: what a ridge is measured by."""
        traces = sum(self.share(s) * float(gram.diagonal().real.sum()) for s, gram in enumerate(self.grams))
        return traces / len(self.grams[0])

    def variance(self) -> float:
        """Weighted squared distance of B's embeddings from their mean; 0 if it is but rounding."""
        if self.weight == 0:
            return 0.0
        variance = self.power_b - float(self.sum_b.square().sum()) / self.weight
        return variance if variance > 1e-9 * self.power_b else 0.0

    def solve(self, ridge: float, rcond: float) -> Tensor:
        """The map that fits these words best; the smallest of them where they leave it open.

        Args:
            ridge: weight of ``|G|^2``, not negative; 0 gives the pseudo-inverse.
            rcond: without a ridge, eigenvalues of the gram up to this times the largest of all slices
                count as zero. They are squares of the singular values of the stacked embeddings.

        Returns:
            (d_A, d_B, n), double precision.
        """
        if ridge > 0:
            pairs = zip(self.grams, self.crosses, strict=True)
            solved = [
                torch.cholesky_solve(cross, torch.linalg.cholesky(gram + ridge * _identity_like(gram)))
                for gram, cross in pairs
            ]
        else:
            found = _surely_full_rank(self.grams, self.crosses, rcond)
            solved = found if found is not None else _low_rank(self.grams, self.crosses, rcond)
        slices = torch.stack([part.to(torch.complex128) for part in solved])
        return from_slices(slices, self.n, torch.float64)

    def squared_error(self, g: Tensor) -> float:
        """``sum_w omega_w |x_w * G - y_w|^2`` of these words for any map, without the words.

        Args:
            g: (d_A, d_B, n).
        """
        g_hat = torch.fft.rfft(g.to(self.sum_b))
        error = self.power_b
        for s, (gram, cross) in enumerate(zip(self.grams, self.crosses, strict=True)):
            g_s = g_hat[..., s].real if self.is_real(s) else g_hat[..., s]
            error += self.share(s) * float((g_s.conj() * (gram @ g_s - 2 * cross)).sum().real)
        return error


_BLOCK = 256  # columns of a symmetric product that are computed at once


def _symmetric(left: Tensor, right: Tensor) -> Tensor:
    """``left' right`` for real matrices whose product is symmetric: one half is computed, in blocks."""
    d = left.shape[1]
    product = left.new_empty(d, d)
    for first in range(0, d, _BLOCK):
        last = min(first + _BLOCK, d)
        block = left[:, first:last].T @ right[:, first:]
        product[first:last, first:] = block
        product[first:, first:last] = block.T
    return product


def _complex_products(a: Tensor, b: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """``a^H diag(w) a`` and ``a^H diag(w) b`` of complex matrices in five real products, not eight.

    The gram's real part is symmetric and its imaginary part the difference of a product and its transpose;
    the cross takes three products (Gauss's trick).

    Args:
        a: (N, d_A).
        b: (N, d_B).
        weights: (N,).
    """
    p, q, c, d = a.real.contiguous(), a.imag.contiguous(), b.real, b.imag
    wp, wq = p * weights[:, None], q * weights[:, None]
    skew = wp.T @ q
    gram = torch.complex(_symmetric(torch.cat([wp, wq]), torch.cat([p, q])), skew - skew.T)
    pc, qd = wp.T @ c, wq.T @ d
    cross = torch.complex(pc + qd, (wp - wq).T @ (c + d) - pc + qd)
    return gram, cross


def _surely_full_rank(grams: list[Tensor], crosses: list[Tensor], rcond: float) -> list[Tensor] | None:
    """``gram^-1 cross`` of all slices if it is plain that no eigenvalue is up to the cut-off, else None.

    The smallest eigenvalue of ``L L^H`` is at least ``1 / |L^-1|^2`` in the Frobenius norm, and the largest
    is at most the trace: bounds that cost little beside the eigenvalues.
    """
    highest = rcond * max(float(gram.diagonal().real.sum()) for gram in grams)
    solved = []
    for gram, cross in zip(grams, crosses, strict=True):
        factor, failed = torch.linalg.cholesky_ex(gram)
        if int(failed):
            return None
        inverse = torch.linalg.solve_triangular(factor, _identity_like(factor), upper=False)
        # Written so that nan is not sure either.
        if not highest * float(inverse.abs().square().sum()) < 1.0:
            return None
        solved.append(torch.cholesky_solve(cross, factor))
    return solved


def _low_rank(grams: list[Tensor], crosses: list[Tensor], rcond: float) -> list[Tensor]:
    """``gram^+ cross`` of all slices; eigenvalues up to ``rcond`` times the largest count as zero."""
    spectra = [torch.linalg.eigh(gram) for gram in grams]
    cutoff = rcond * max(float(values[-1]) for values, _ in spectra)
    solved = []
    for (values, vectors), cross in zip(spectra, crosses, strict=True):
        gains = spectral_gains(values, 0.0, cutoff).to(vectors.dtype)
        solved.append(vectors @ (gains[:, None] * (vectors.mH @ cross)))
    return solved


def _identity_like(square: Tensor) -> Tensor:
    return torch.eye(len(square), dtype=square.dtype, device=square.device)


def spectral_gains(eigenvalues: Tensor, ridge: float, cutoff: float) -> Tensor:
    """``1 / (e + ridge)`` for each eigenvalue; without a ridge, 0 for those up to the cut-off."""
    kept = (eigenvalues > cutoff) if ridge == 0 else torch.ones_like(eigenvalues, dtype=torch.bool)
    return torch.where(kept, 1.0 / torch.where(kept, eigenvalues + ridge, 1.0), 0.0)

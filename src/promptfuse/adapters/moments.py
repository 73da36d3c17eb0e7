"""Streamed moments: everything a least-squares fit under the t-product needs, whatever the corpus size.

For words x_w (d_A x n) and y_w (d_B x n) with weights omega_w, the map that minimises
``sum_w omega_w |x_w * G - y_w|^2 + ridge |G|^2`` depends on the words only through two sums per Fourier
slice, the *gram* ``sum omega x^H x`` and the *cross* ``sum omega x^H y``. They are added up in double
precision, batch after batch, and sums of shards add up to the sums of the whole.

Source: Williams and Kolter, arXiv 2408.04816, section 3.1, gives the least-squares problem; that it can be
streamed is our addition.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import prod
from typing import ClassVar

import torch
from jaxtyping import Float, Num
from torch import Tensor

from promptfuse.errors import AdapterError
from promptfuse.tproduct import from_slices


class Workspace:
    """Memory that batches are worked on in: taken once, because fresh pages cost as much as some products."""

    def __init__(self) -> None:
        self._held: list[Tensor] = []

    def take(
        self, shape: Sequence[int], device: torch.device
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Two tensors in double precision with arbitrary contents, until the next call."""
        count = prod(shape)
        if not self._held or self._held[0].numel() < count or self._held[0].device != device:
            self._held = [torch.empty(count, dtype=torch.float64, device=device) for _ in range(2)]
        one, other = (held[:count].view(*shape) for held in self._held)
        return one, other


class Moments:
    """Weighted second moments of pairs of embeddings of n sub-tokens, per Fourier slice.

    The first slice, and for even n the middle one, of real data are real and kept so: it is a quarter of
    the work. The sums are kept in the form in which they are cheapest to add to, see `_RealSums` and
    `_ComplexSums`.

    Args:
        d_a: width of model A's embeddings.
        d_b: width of model B's.
        n: sub-tokens, the length of the tubes.
        device: where the sums are kept; it must know double precision.
        workspace: one for all moments that are added to in turn; a new one by default.

    Attributes:
        words: pairs seen.
        weight: sum of their weights.
        sum_b: (d_B, n), weighted sum of B's embeddings.
        power_b: weighted sum of their squared norms.
    """

    def __init__(
        self,
        d_a: int,
        d_b: int,
        n: int,
        device: torch.device | str = "cpu",
        workspace: Workspace | None = None,
    ) -> None:
        self.n = n
        self._workspace = workspace or Workspace()
        self.widths = (d_a, d_b)
        kinds = [_RealSums if self.is_real(s) else _ComplexSums for s in range(n // 2 + 1)]
        self._sums: list[_Sums] = [kind(d_a, d_b, device) for kind in kinds]
        self._basis = _real_dft(n).to(device)
        self.words = 0
        self.weight = 0.0
        self.sum_b = torch.zeros(d_b, n, dtype=torch.float64, device=device)
        self.power_b = 0.0

    @property
    def grams(self) -> list[Num[Tensor, "d_a d_a"]]:
        """For each of the ``n // 2 + 1`` slices (d_A, d_A), real or complex."""
        return [sums.gram() for sums in self._sums]

    @property
    def crosses(self) -> list[Num[Tensor, "d_a d_b"]]:
        """For each slice (d_A, d_B)."""
        return [sums.cross() for sums in self._sums]

    def is_real(self, s: int) -> bool:
        """Whether slice s of real data is real."""
        return s == 0 or 2 * s == self.n

    def share(self, s: int) -> float:
        """Weight of slice s in a squared norm over all n slices, by Parseval's theorem.

        Slices that are not real stand for their conjugates, which are not stored, as well.
        """
        return (1.0 if self.is_real(s) else 2.0) / self.n

    def update(
        self, x: Float[Tensor, "N d_a n"], y: Float[Tensor, "N d_b n"], weights: Num[Tensor, " N"]
    ) -> None:
        """Add a batch of words.

        Args:
            x: (N, d_A, n), A's embeddings, zero after each word's last sub-token.
            y: (N, d_B, n), B's.
            weights: (N,), not negative.
        """
        d_a, d_b = self.widths
        device = self.sum_b.device
        # Both models side by side, the tube in front: every slice is then one contiguous matrix.
        both, slices = self._workspace.take((self.n, len(x), d_a + d_b), device)
        both[..., :d_a] = x.permute(2, 0, 1)
        both[..., d_a:] = y.permute(2, 0, 1)
        roots = weights.to(both).sqrt()[:, None]
        both *= roots
        torch.mm(self._basis, both.flatten(1), out=slices.flatten(1))
        rows = iter(slices)
        for sums in self._sums:
            sums.add(*(next(rows) for _ in range(sums.rows)))
        self.words += len(x)
        self.weight += float(weights.sum())
        self.sum_b += (roots[:, 0] @ both[..., d_a:]).T
        self.power_b += float(both[..., d_a:].square().sum())

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of words together, such as those of two shards."""
        if (other.n, other.widths) != (self.n, self.widths):
            raise ValueError("only moments of the same widths and number of sub-tokens can be added")
        total = Moments(*self.widths, self.n, self.sum_b.device)
        for part in (self, other):
            for sums, more in zip(total._sums, part._sums, strict=True):
                sums.merge(more)
            total.words += part.words
            total.weight += part.weight
            total.sum_b += part.sum_b
            total.power_b += part.power_b
        return total

    def to_tensors(self) -> dict[str, Tensor]:
        """All sums by name, such as safetensors' ``save_file`` takes: for shards on other machines."""
        scalars = torch.tensor(
            [*self.widths, self.n, self.words, self.weight, self.power_b], dtype=torch.float64
        )
        sums = {
            f"slices.{s}.{k}": tensor
            for s, part in enumerate(self._sums)
            for k, tensor in enumerate(part.tensors())
        }
        return {"scalars": scalars, "sum_b": self.sum_b, **sums}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Moments:
        """Undo `to_tensors`.

        Raises:
            AdapterError: if a sum is missing or has another shape.
        """
        try:
            d_a, d_b, n, words, weight, power_b = tensors["scalars"].tolist()
            moments = cls(int(d_a), int(d_b), int(n), tensors["sum_b"].device)
            moments.words, moments.weight, moments.power_b = int(words), weight, power_b
            for name, tensor in moments.to_tensors().items():
                if name != "scalars":
                    if tensors[name].shape != tensor.shape:
                        raise ValueError(f"{name} has the shape {tuple(tensors[name].shape)}")
                    tensor.copy_(tensors[name])
        except (KeyError, ValueError, RuntimeError) as error:
            raise AdapterError(
                f"these tensors are not the moments of a fit ({error}); save them again"
            ) from None
        return moments

    def positional(self) -> Moments:
        """The moments, with n = 1, of the same words taken apart: a pair for each sub-token position.

        By Parseval's theorem the sums over positions are means over slices, so nothing has to be
        streamed a second time.
        """
        apart = Moments(*self.widths, 1, self.sum_b.device)
        for s, sums in enumerate(self._sums):
            both = torch.cat([sums.gram().real, sums.cross().real], dim=1)
            apart._sums[0].merge(_RealSums.of(self.share(s) * both))
        apart.words = self.words * self.n
        apart.weight = self.weight * self.n
        apart.sum_b = self.sum_b.sum(1, keepdim=True)
        apart.power_b = self.power_b
        return apart

    def scale(self) -> float:
        """Mean eigenvalue of the gram over all slices: what a ridge is measured by."""
        return sum(self.share(s) * sums.trace() for s, sums in enumerate(self._sums)) / self.widths[0]

    def variance(self) -> float:
        """Weighted squared distance of B's embeddings from their mean; 0 if it is but rounding."""
        if self.weight == 0:
            return 0.0
        variance = self.power_b - float(self.sum_b.square().sum()) / self.weight
        return variance if variance > 1e-9 * self.power_b else 0.0

    def solve(self, ridge: float, rcond: float) -> Float[Tensor, "d_a d_b {self.n}"]:
        """The map that fits these words best; the smallest of them where they leave it open.

        Args:
            ridge: weight of ``|G|^2``, not negative; 0 gives the pseudo-inverse.
            rcond: without a ridge, eigenvalues of the gram up to this times the largest of all slices
                count as zero. They are squares of the singular values of the stacked embeddings.

        Returns:
            (d_A, d_B, n), double precision.
        """
        grams, crosses = self.grams, self.crosses
        if ridge > 0:
            solved = [
                torch.cholesky_solve(cross, torch.linalg.cholesky(gram + ridge * _identity_like(gram)))
                for gram, cross in zip(grams, crosses, strict=True)
            ]
        else:
            found = _surely_full_rank(grams, crosses, rcond)
            solved = found if found is not None else _low_rank(grams, crosses, rcond)
        slices = torch.stack([part.to(torch.complex128) for part in solved])
        return from_slices(slices, self.n, torch.float64)

    def squared_error(self, g: Float[Tensor, "d_a d_b n"]) -> float:
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


_BLOCK = 256  # rows of a symmetric product that are computed at once


class _Sums(ABC):
    """Sums over words for one slice, in the form in which they are cheapest to add to."""

    rows: ClassVar[int]
    """How many real matrices a batch has for the slice."""

    @abstractmethod
    def add(self, *parts: Float[Tensor, "N d"]) -> None:
        """Add a batch: its real matrices, each (N, d_A + d_B), scaled by the roots of the weights."""

    @abstractmethod
    def tensors(self) -> list[Tensor]:
        """The sums themselves."""

    @abstractmethod
    def gram(self) -> Num[Tensor, "d_a d_a"]:
        """(d_A, d_A), Hermitian."""

    @abstractmethod
    def cross(self) -> Num[Tensor, "d_a d_b"]:
        """(d_A, d_B)."""

    @abstractmethod
    def trace(self) -> float:
        """Trace of the gram."""

    def merge(self, other: _Sums) -> None:
        """Add the sums of other words."""
        for mine, more in zip(self.tensors(), other.tensors(), strict=True):
            mine += more


class _RealSums(_Sums):
    """``a' a`` and ``a' b`` of the real matrices of one slice, side by side.

    Of the symmetric part only the blocks on and above the diagonal are added to.
    """

    rows = 1

    def __init__(self, d_a: int, d_b: int, device: torch.device | str) -> None:
        self.d_a = d_a
        self.upper = torch.zeros(d_a, d_a + d_b, dtype=torch.float64, device=device)

    @classmethod
    def of(cls, both: Float[Tensor, "d_a d"]) -> _RealSums:
        """From known sums, (d_A, d_A + d_B)."""
        sums = cls(len(both), both.shape[1] - len(both), both.device)
        sums.upper.copy_(both)
        return sums

    def add(self, *parts: Float[Tensor, "N d"]) -> None:
        (both,) = parts
        for first in range(0, self.d_a, _BLOCK):
            last = min(first + _BLOCK, self.d_a)
            self.upper[first:last, first:].addmm_(both[:, first:last].T, both[:, first:])

    def tensors(self) -> list[Tensor]:
        return [self.upper]

    def gram(self) -> Num[Tensor, "d_a d_a"]:
        upper = self.upper[:, : self.d_a].triu()
        return upper + upper.triu(1).T

    def cross(self) -> Num[Tensor, "d_a d_b"]:
        return self.upper[:, self.d_a :]

    def trace(self) -> float:
        return float(self.upper.diagonal().sum())


class _ComplexSums(_Sums):
    """``a^H a`` and ``a^H b`` of a slice ``a = p + i q``, ``b = c + i d``, in few real products.

    The product ``(p - q)' (p + q)`` has ``p'p - q'q`` as its symmetric part and ``p'q - q'p``, the gram's
    imaginary part, as the other; with ``q'q``, of which a half is enough, there is the gram. The cross comes
    from ``(p - q)' (c + d)``, ``p'c`` and ``q'd`` (Gauss's trick).
    """

    rows = 2

    def __init__(self, d_a: int, d_b: int, device: torch.device | str) -> None:
        self.d_a = d_a
        self.mixed = torch.zeros(d_a, d_a + d_b, dtype=torch.float64, device=device)
        self.real_cross = torch.zeros(d_a, d_b, dtype=torch.float64, device=device)
        self.imaginary = _RealSums(d_a, d_b, device)

    def add(self, *parts: Float[Tensor, "N d"]) -> None:
        (real, imaginary), d_a = parts, self.d_a
        self.mixed.addmm_((real[:, :d_a] - imaginary[:, :d_a]).T, real + imaginary)
        self.real_cross.addmm_(real[:, :d_a].T, real[:, d_a:])
        self.imaginary.add(imaginary)

    def tensors(self) -> list[Tensor]:
        return [self.mixed, self.real_cross, *self.imaginary.tensors()]

    def gram(self) -> Num[Tensor, "d_a d_a"]:
        mixed = self.mixed[:, : self.d_a]
        return torch.complex((mixed + mixed.T) / 2 + 2 * self.imaginary.gram(), (mixed - mixed.T) / 2)

    def cross(self) -> Num[Tensor, "d_a d_b"]:
        pc, qd = self.real_cross, self.imaginary.cross()
        return torch.complex(pc + qd, self.mixed[:, self.d_a :] - pc + qd)

    def trace(self) -> float:
        return float(self.mixed.diagonal().sum()) + 2 * self.imaginary.trace()


def _real_dft(n: int) -> Float[Tensor, "{n} {n}"]:
    """The discrete Fourier transform of real tubes as a real matrix, (n, n).

    Its rows give the slices in order: one row for a slice that is real, two, the real and the imaginary
    part, for the others. The tubes are so short that this product is cheaper than a fast transform.
    """
    angles = torch.arange(n, dtype=torch.float64) * (2 * torch.pi / n)
    rows = []
    for s in range(n // 2 + 1):
        # Whole turns are taken off first: the angles stay small, and the rounding with them.
        turned = angles[(torch.arange(n) * s) % n]
        rows += [turned.cos()] if s == 0 or 2 * s == n else [turned.cos(), -turned.sin()]
    return torch.stack(rows)


def _surely_full_rank(
    grams: list[Num[Tensor, "d_a d_a"]], crosses: list[Num[Tensor, "d_a d_b"]], rcond: float
) -> list[Num[Tensor, "d_a d_b"]] | None:
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


def _low_rank(
    grams: list[Num[Tensor, "d_a d_a"]], crosses: list[Num[Tensor, "d_a d_b"]], rcond: float
) -> list[Num[Tensor, "d_a d_b"]]:
    """``gram^+ cross`` of all slices; eigenvalues up to ``rcond`` times the largest count as zero."""
    spectra = [torch.linalg.eigh(gram) for gram in grams]
    cutoff = rcond * max(float(values[-1]) for values, _ in spectra)
    solved = []
    for (values, vectors), cross in zip(spectra, crosses, strict=True):
        gains = spectral_gains(values, 0.0, cutoff).to(vectors.dtype)
        solved.append(vectors @ (gains[:, None] * (vectors.mH @ cross)))
    return solved


def _identity_like(square: Num[Tensor, "d d"]) -> Num[Tensor, "d d"]:
    return torch.eye(len(square), dtype=square.dtype, device=square.device)


def spectral_gains(eigenvalues: Float[Tensor, " d"], ridge: float, cutoff: float) -> Float[Tensor, " d"]:
    """``1 / (e + ridge)`` for each eigenvalue; without a ridge, 0 for those up to the cut-off."""
    kept = (eigenvalues > cutoff) if ridge == 0 else torch.ones_like(eigenvalues, dtype=torch.bool)
    return torch.where(kept, 1.0 / torch.where(kept, eigenvalues + ridge, 1.0), 0.0)

"""The maps of an adapter and how they act on the embeddings of a whole text.

A text of K segments, with n_A and n_B sub-tokens each, is packed into one t-matrix per length
n = max(n_A, n_B), zero-padded on the right, and multiplied by the map that was fitted for n. `pull` is
the exact adjoint of `push`, so a gradient that arrives at the tokens of segment k stays in segment k.

Source: Williams and Kolter, arXiv 2408.04816, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from promptfuse.tproduct import t_product, t_transpose


@dataclass(frozen=True)
class Maps:
    """One t-matrix for each number of sub-tokens, and one matrix for all other numbers.

    Attributes:
        by_length: {n: (d_A, d_B, n)}.
        positional: (d_A, d_B), takes every sub-token to the one at the same position.
    """

    by_length: Mapping[int, Float[Tensor, "d_a d_b _"]]
    positional: Float[Tensor, "d_a d_b"]

    def of_length(self, n: int) -> Float[Tensor, "d_a d_b {n}"]:
        """The map for words of ``n = max(n_A, n_B)`` sub-tokens, (d_A, d_B, n).

        Where none was fitted it is the positional map, whose tubes are zero but for the first entry.
        """
        if n in self.by_length:
            return self.by_length[n]
        tubes = self.positional.new_zeros(*self.positional.shape, n)
        tubes[..., 0] = self.positional
        return tubes

    def push(
        self, x_a: Float[Tensor, "*_"], n_a: Sequence[int], n_b: Sequence[int]
    ) -> Float[Tensor, "batch {sum(n_b)} d_b"]:
        """Map A's embeddings of a text to approximations of B's: ``X * G`` for each segment.

        Args:
            x_a: (batch, sum(n_a), d_A), the segments' sub-tokens in order.
            n_a: sub-tokens of each segment in A.
            n_b: sub-tokens of each segment in B.

        Returns:
            (batch, sum(n_b), d_B).

        Raises:
            ValueError: if the counts do not belong together or to ``x_a``.
        """
        _check(x_a, n_a, n_b, n_a)
        mapped = x_a.new_zeros(len(x_a), sum(n_b), self.positional.shape[1])
        for n, segments in _by_length(n_a, n_b).items():
            g = self.of_length(n).to(x_a)
            mapped = mapped + _unpack(t_product(_pack(x_a, n_a, segments, n), g), n_b, segments)
        return mapped

    def pull(
        self, gradient_b: Float[Tensor, "*_"], n_a: Sequence[int], n_b: Sequence[int]
    ) -> Float[Tensor, "batch {sum(n_a)} d_a"]:
        """The adjoint of `push`: ``(dL/dX_B) * G'`` for each segment, with the true t-transpose.

        Args:
            gradient_b: (batch, sum(n_b), d_B), gradient at B's sub-tokens, special tokens left out.
            n_a: sub-tokens of each segment in A.
            n_b: sub-tokens of each segment in B.

        Returns:
            (batch, sum(n_a), d_A), gradient at A's sub-tokens.

        Raises:
            ValueError: if the counts do not belong together or to ``gradient_b``.
        """
        _check(gradient_b, n_a, n_b, n_b)
        pulled = gradient_b.new_zeros(len(gradient_b), sum(n_a), self.positional.shape[0])
        for n, segments in _by_length(n_a, n_b).items():
            adjoint = t_transpose(self.of_length(n).to(gradient_b))
            packed = _pack(gradient_b, n_b, segments, n)
            pulled = pulled + _unpack(t_product(packed, adjoint), n_a, segments)
        return pulled


def _check(x: Tensor, n_a: Sequence[int], n_b: Sequence[int], counts: Sequence[int]) -> None:
    if len(n_a) != len(n_b):
        raise ValueError(f"{len(n_a)} segments in A and {len(n_b)} in B; the counts must be of one text")
    if x.dim() != 3 or x.shape[1] != sum(counts):
        raise ValueError(f"shape {tuple(x.shape)} does not hold the {sum(counts)} sub-tokens of one text")


def _by_length(n_a: Sequence[int], n_b: Sequence[int]) -> dict[int, list[int]]:
    """Segments by ``max(n_A, n_B)``, those without any token left out."""
    groups: dict[int, list[int]] = {}
    for segment, n in enumerate(map(max, n_a, n_b)):
        if n:
            groups.setdefault(n, []).append(segment)
    return groups


def _positions(
    counts: Sequence[int], segments: Sequence[int], device: torch.device
) -> tuple[Int[Tensor, " segments"], Int[Tensor, " segments"]]:
    """First position of each segment and its count, both (segments,)."""
    firsts = [0, *accumulate(counts)]
    first = torch.tensor([firsts[k] for k in segments], device=device)
    return first, torch.tensor([counts[k] for k in segments], device=device)


def _pack(
    x: Float[Tensor, "batch tokens d"], counts: Sequence[int], segments: Sequence[int], n: int
) -> Float[Tensor, "batch {len(segments)} d {n}"]:
    """Tokens (batch, T, d) of some segments as (batch, segments, d, n), zero-padded on the right."""
    first, count = _positions(counts, segments, x.device)
    step = torch.arange(n, device=x.device)
    padding = x.shape[1]
    index = torch.where(step < count[:, None], first[:, None] + step, padding)
    padded = torch.cat([x, x.new_zeros(len(x), 1, x.shape[2])], dim=1)
    return padded[:, index].transpose(-1, -2)


def _unpack(
    packed: Float[Tensor, "batch segments d n"], counts: Sequence[int], segments: Sequence[int]
) -> Float[Tensor, "batch {sum(counts)} d"]:
    """The inverse of `_pack`: (batch, sum(counts), d), zero at all other segments' tokens."""
    batch, _, d, n = packed.shape
    first, count = _positions(counts, segments, packed.device)
    step = torch.arange(n, device=packed.device)
    inside = step < count[:, None]
    index = (first[:, None] + step)[inside]
    tokens = packed.transpose(-1, -2)[:, inside]
    return packed.new_zeros(batch, sum(counts), d).index_copy(1, index, tokens)

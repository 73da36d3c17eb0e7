"""What a model does to rows that stand in one batch, found out by a trial at its first use.

Padding should change nothing, but for some architectures it does: a convolution or a Fourier transform reads
it, the last column is pooled whatever stands there, or positions are turned by an angle that depends on the
longest row. Such models read rows of one length together, and no padding. A trial finds them whatever they
are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from promptfuse.errors import ModelError
from promptfuse.models.lookups import embeddings_replaced

if TYPE_CHECKING:
    from promptfuse.models.batch import Batch
    from promptfuse.models.forward import ForwardPass

UNREADABLE = (
    AssertionError, AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError,
    UnboundLocalError, ValueError,
)  # fmt: skip
"""What a model says that does not take what it is given."""

LENGTHS = (2, 3, 5, 12, 40)
"""Tokens of the rows that every model is tried on."""
MORE_LENGTHS = (8, 17, 28, 64, 96)
"""And of those that are tried where it takes no time."""
_CHEAP = 1e9
"""Multiplications of a trial that takes no time."""

_UNCHANGED = ("default", "linear", "yarn", "llama3", "proportional")
"""Rotary embeddings whose angles are the same whatever the length of a row."""


@dataclass(frozen=True)
class Verdict:
    """What may be read in one pass.

    Attributes:
        padded: whether rows of different lengths may.
        batched: whether rows of one length may.
        border: rows that are longer change what shorter ones give, so they may stand with rows of their
            own length only.
        causal: rows up to this length give what their beginnings give by themselves.
    """

    padded: bool = True
    batched: bool = True
    border: int = 2**31
    causal: int = 2**31

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """The numbers of rows that are read in one pass each.

        Args:
            lengths: tokens of each row.
        """
        if not self.batched:
            return [[index] for index in range(len(lengths))]
        if len(set(lengths)) < 2 or (self.padded and max(lengths) <= self.border):
            return [list(range(len(lengths)))]
        groups: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            groups.setdefault(0 if self.padded and length <= self.border else length, []).append(index)
        return list(groups.values())


def changing_length(config: Any) -> int:
    """The longest row up to which a model's rotary embeddings are the same for rows of every length.

    Args:
        config: the text model's configuration.
    """
    found = [2**31]
    for name in ("rope_parameters", "rope_scaling"):
        settings = getattr(config, name, None)
        if not isinstance(settings, dict):
            continue
        for one in (settings, *(value for value in settings.values() if isinstance(value, dict))):
            kind = one.get("rope_type", one.get("type"))
            if kind is None or kind in _UNCHANGED:
                continue
            places = (
                one.get("original_max_position_embeddings"),
                getattr(config, "original_max_position_embeddings", None),
                getattr(config, "max_position_embeddings", None),
            )
            found.append(next((int(size) for size in places if isinstance(size, int | float)), 0))
    return min(found)


def ordinary_ids(model: ForwardPass) -> list[int]:
    """The ids that are no special tokens."""
    special = {*model.tokenizer.all_special_ids, model.pad_id}
    count = min(len(model.tokenizer), len(model.embedding_table))
    return [index for index in range(count) if index not in special] or [0]


def trial_row(model: ForwardPass, length: int) -> tuple[list[int], tuple[int, int]]:
    """A row of tokens drawn at random, between the special tokens of a text, and where they stand.

    Args:
        model: whose row it is.
        length: tokens of the row; at least one is no special token.
    """
    (like,), ((start, stop),) = model.encode_rows(["a"])
    front, back = like[:start], like[stop:]
    known = ordinary_ids(model)
    order = torch.randint(len(known), (512,), generator=torch.Generator().manual_seed(0)).tolist()
    # The rows begin alike, as far as they go.
    inner = [known[order[index % 512]] for index in range(max(1, length - len(front) - len(back)))]
    return [*front, *inner, *back], (len(front), len(front) + len(inner))


def _lengths(model: ForwardPass) -> list[int]:
    """How long the rows of a trial are, ascending."""
    (like,), ((start, stop),) = model.encode_rows(["a"])
    least = max(2, len(like) - (stop - start) + 1)
    weights = sum(parameter.numel() for parameter in model.module.parameters())
    cheap = weights * (sum(MORE_LENGTHS) + max(MORE_LENGTHS) * len(MORE_LENGTHS)) < _CHEAP
    wanted = {*LENGTHS, *(MORE_LENGTHS if cheap else ()), least, least + 1}
    return sorted({length for length in wanted if least <= length <= model.max_length})


@torch.no_grad()
def try_out(model: ForwardPass) -> Verdict:
    """Read rows alone and together, and compare.

    Raises:
        ModelError: if the model reads no row, or the same row differently each time.
    """
    border = changing_length(model.text_module.config)
    rows = [trial_row(model, length) for length in _lengths(model)]
    if not rows:
        return Verdict(border=border)
    batches = [model.collate([row], [content]) for row, content in rows]
    try:
        model.read_padded(batches[0])  # The first pass may set a model up.
        alone = [model.read_padded(batch)[0] for batch in batches]
        again = model.read_padded(batches[-1])[0]
    except UNREADABLE as error:
        raise ModelError(
            f"{model.name}: {type(model.module).__name__} cannot read a text ({_line(error)}); "
            "use another model"
        ) from error
    near = _Nearness(model, batches)
    if not near(again, alone[-1]):
        raise ModelError(
            f"{model.name}: {type(model.module).__name__} reads the same text differently each time; "
            "use another model"
        )
    return Verdict(
        _agrees(model, rows, alone, near),
        _agrees(model, [rows[-1], rows[-1]], [alone[-1]] * 2, near)
        and _agrees(model, *_changed(model, rows[len(rows) // 2]), near),
        border,
        _causal(rows, alone, near) if alone[-1].dim() and model.logits_width else 2**31,
    )


def _changed(model: ForwardPass, row: tuple[list[int], tuple[int, int]]) -> tuple[list[Any], list[Tensor]]:
    """A row and another of its length, and what each gives by itself."""
    ids, (start, stop) = row
    other = ([*ids[:start], *reversed(ids[start:stop]), *ids[stop:]], (start, stop))
    rows = [row, other]
    return rows, [model.read_padded(model.collate([ids], [content]))[0] for ids, content in rows]


def _agrees(
    model: ForwardPass,
    rows: Sequence[tuple[list[int], tuple[int, int]]],
    alone: Sequence[Tensor],
    near: _Nearness,
) -> bool:
    """Whether rows of one batch give what each of them gives by itself."""
    try:
        batch = model.collate([row for row, _ in rows], [content for _, content in rows])
        found = model.read_padded(batch)
    except UNREADABLE:
        return False
    return all(near(own[: len(true)], true) for own, true in zip(found, alone, strict=True))


def _causal(
    rows: Sequence[tuple[list[int], tuple[int, int]]], alone: Sequence[Tensor], near: _Nearness
) -> int:
    """The longest row up to which every row gives what its beginnings do."""
    for count in range(len(rows), 0, -1):
        longest = alone[count - 1]
        if all(near(longest[: len(short)], short) for short in alone[:count]):
            return 2**31 if count == len(rows) else len(rows[count - 1][0])
    return 0


class _Nearness:
    """Tells rounding from a real difference.

    Where a difference is larger than rounding mostly is, it is compared with what comes of rounding the
    input embeddings otherwise: a deep model may amplify that.
    """

    def __init__(self, model: ForwardPass, batches: Sequence[Batch]) -> None:
        self.model = model
        self.batches = batches
        precision = torch.finfo(next(model.module.parameters()).dtype).eps
        self.coarse = precision > 1e-4
        self.floor = 0.02 if self.coarse else 1e-5
        # Some parts of models are in single precision whatever their parameters are.
        self.amplitude = 2 * precision if self.coarse else 16 * max(precision, 1.2e-7)
        self._noise: float | None = None

    def __call__(self, found: Tensor, expected: Tensor) -> bool:
        """Whether two outputs differ by rounding alone."""
        if found.shape != expected.shape:
            return False
        finite = torch.isfinite(found) & torch.isfinite(expected)
        found, expected = found[finite], expected[finite]
        if not found.numel():
            return True
        difference = float(((found - expected).abs() / (1 + expected.abs())).max())
        if difference <= self.floor:
            return True
        return difference <= 50 * self.floor and difference <= self.noise

    @property
    def noise(self) -> float:
        """What becomes of rounding errors at the embeddings."""
        if self._noise is None:
            self._noise = self._measured()
        return self._noise

    def _measured(self) -> float:
        generator, worst = torch.Generator().manual_seed(1), 0.0
        for batch in self.batches[-2:]:
            expected, own = self.model.read_padded(batch), self.model.embed(batch.ids)
            for _ in range(2):
                error = torch.randn(own.shape, generator=generator).to(own)
                with embeddings_replaced(self.model.lookups, own * (1 + self.amplitude * error)):
                    found = self.model.read_padded(batch)
                worst = max(worst, float(((found - expected).abs() / (1 + expected.abs())).max()))
        return worst


def is_differentiable(model: ForwardPass) -> bool:
    """Whether a gradient comes back from what a model makes of a text to its input embeddings."""
    lengths = _lengths(model)
    if not model.lookups or not lengths:
        return False
    row, content = trial_row(model, lengths[len(lengths) // 2])
    batch = model.collate([row], [content])
    try:
        embeddings = model.embed(batch.ids).detach().clone().requires_grad_(True)
        with torch.enable_grad(), embeddings_replaced(model.lookups, embeddings):
            found = model.read_padded(batch)
            # Weights of their own, so that what adds up to a constant does not cancel.
            weights = torch.arange(1, found.numel() + 1, device=found.device, dtype=found.dtype)
            (gradient,) = torch.autograd.grad((found.flatten() * weights).sum(), embeddings)
    except UNREADABLE:
        return False
    return bool(torch.isfinite(gradient).all()) and bool(gradient.any())


def _line(error: BaseException) -> str:
    """What an error says, in one line."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return (text or type(error).__name__)[:160]

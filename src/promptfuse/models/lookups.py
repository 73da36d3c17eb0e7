"""Where a model looks token ids up, and how other embeddings get into the place of what is found there.

Not every part of a model that reads ids does so by the module that ``get_input_embeddings`` names: an
encoder-decoder may have one for each half, of which the decoder's is given the text one place to the right.
So the modules are found by a trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn


@dataclass(frozen=True)
class Lookup:
    """A module that turns the ids of a text into input embeddings.

    Attributes:
        module: the module.
        scale: what its embeddings are, as a multiple of those that the model is described by.
        turned: whether it is given ids as (length, rows).
    """

    module: nn.Module
    scale: float = 1.0
    turned: bool = False


_PART: ContextVar[tuple[Tensor, int] | None] = ContextVar("part", default=None)


@contextmanager
def reading_part(rows: Int[Tensor, " rows"], length: int) -> Iterator[None]:
    """Say that a block reads only some rows of the batch for which there are embeddings.

    Args:
        rows: numbers of the rows.
        length: their columns.
    """
    token = _PART.set((rows, length))
    try:
        yield
    finally:
        _PART.reset(token)


def found_embeddings(output: Any) -> Num[Tensor, "*_"]:
    """The embeddings that a module gives, by themselves or with something after them (I-BERT)."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


def _asked_ids(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Num[Tensor, "rows length"] | None:
    """The ids that a module is given."""
    given = next(iter((*args, *kwargs.values())), None)
    return given if isinstance(given, Tensor) and given.dim() == 2 else None


def find_lookups(
    whole: nn.Module,
    read: Callable[[], object],
    ids: Int[Tensor, "1 length"],
    expected: Float[Tensor, "1 length d"],
    named: nn.Module,
) -> tuple[Lookup, ...]:
    """The modules that look the ids of a text up while it is read, in the order in which they do so.

    Args:
        whole: the model.
        read: reads ``ids``.
        ids: (1, length), distinct but for special tokens.
        expected: (1, length, d), what the named module gives for them.
        named: the module that the model is described by.
    """
    found: dict[int, Lookup] = {}

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        asked = _asked_ids(args, kwargs)
        if asked is None or id(module) in found:
            return
        turned = asked.shape[0] != 1
        made = found_embeddings(output)
        if turned:
            asked, made = asked.T, made.transpose(0, 1)
        for shift in (0, 1):
            size = min(asked.shape[1] - shift, ids.shape[1] - shift)
            if size < 2 or not torch.equal(asked[:, shift : shift + size], ids[:, :size]):
                continue
            made, like = made[:, shift : shift + size], expected[:, :size]
            if made.shape != like.shape:
                return
            scale = float((made.double() * like.double()).sum() / like.double().square().sum())
            scale = 1.0 if abs(scale - 1) < 1e-3 else scale
            if torch.allclose(made.double(), scale * like.double(), rtol=1e-2, atol=1e-6):
                found[id(module)] = Lookup(module, scale, turned)
            return

    with ExitStack() as stack:
        for module in whole.modules():
            if isinstance(module, nn.Embedding) or module is named:
                handle = module.register_forward_hook(look, with_kwargs=True)
                stack.callback(handle.remove)
        read()
    return tuple(found.values())


@contextmanager
def embeddings_replaced(
    lookups: Sequence[Lookup], embeddings: Float[Tensor, "rows length d"]
) -> Iterator[None]:
    """Make a model's look-ups give these embeddings in place of their own.

    A module that is given the ids one place further to the right, as decoders are, keeps what it has in
    the first place; what a model puts after the ids by itself is left as it is.

    Args:
        lookups: the modules.
        embeddings: (rows, length, d), or, within ``reading_part``, those of the whole batch.
    """
    asker = get_ident()  # Another thread may use the modules meanwhile.
    before: list[Tensor] = []

    def shift_of(ids: Num[Tensor, "rows length"]) -> int:
        for last in before:
            moved = ids.shape[1] > 1 and last.shape == ids.shape and not torch.equal(last, ids)
            if moved and torch.equal(ids[:, 1:], last[:, :-1]):
                return 1
        before[:] = [ids]
        return 0

    def replace_by(lookup: Lookup) -> Callable[..., Any]:
        def replace(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            del module
            ids = _asked_ids(args, kwargs)
            if get_ident() != asker or ids is None:
                return output
            own = found_embeddings(output)
            if lookup.turned:
                ids, own = ids.T, own.transpose(0, 1)
            part, given = _PART.get(), embeddings
            if part is not None:
                given = given[part[0], : part[1]]
            if lookup.scale != 1:
                given = given * lookup.scale
            shift = shift_of(ids)
            size = min(given.shape[1], own.shape[1] - shift)
            if shift or size < own.shape[1]:
                given = torch.cat([own[:, :shift], given[:, :size], own[:, shift + size :]], 1)
            elif lookup.scale == 1:
                given = given.clone()  # Some models change what they looked up in place.
            given = given.transpose(0, 1) if lookup.turned else given
            return (given, *output[1:]) if isinstance(output, tuple) else given

        return replace

    with ExitStack() as stack:
        for lookup in lookups:
            handle = lookup.module.register_forward_hook(replace_by(lookup), with_kwargs=True)
            stack.callback(handle.remove)
        yield

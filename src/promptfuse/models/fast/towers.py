"""The causal text tower of CLIP and its kin, for many texts that share their beginnings.

``transformers`` gives these towers no cache of keys and values, so this is a forward pass of our own over
their modules: pre-norm blocks, causal attention, features at the end mark. It is used where a tower has
exactly these parts and a trial shows that both passes agree; see ``TextTower.of``.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from promptfuse.models.fast.attention import Layout, attend, before, reading_order
from promptfuse.models.fast.packed_blocks import PackedBlock, PackedBlocks
from promptfuse.models.fast.prefix import Branches, KVPrefix, PrefixCache
from promptfuse.models.fast.products import linear
from promptfuse.models.fast.tower_blocks import Block, ModuleBlock
from promptfuse.models.fast.tower_gradient import read_and_differentiate

_PARTS = {"embeddings", "encoder", "final_layer_norm"}
_LAYER = {"self_attn", "layer_norm1", "mlp", "layer_norm2"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "out_proj"}
_MLP = {"activation_fn", "fc1", "fc2"}


_PREPARING = Lock()
"""One for all towers, so that they can be copied and pickled."""


class TextTower:
    """A forward pass over the modules of a text tower such as ``CLIPTextModel``.

    Args:
        module: the tower.
        projection: from the tower's width to that of the features.
        limit: bytes of keys and values to remember.
    """

    def __init__(self, module: Any, projection: nn.Module, limit: int) -> None:
        self.module = module
        self.projection = projection
        self.cache = PrefixCache(module, limit)
        self._blocks: list[ModuleBlock] = []
        self._packed: PackedBlocks | None = None
        self._seen = -1

    @staticmethod
    def matches(module: Any) -> bool:
        """Whether a module has the parts of CLIP's text tower and no others."""
        if {name for name, _ in module.named_children()} != _PARTS or not hasattr(module, "eos_token_id"):
            return False
        embeddings = {name for name, _ in module.embeddings.named_children()}
        layers = getattr(module.encoder, "layers", ())
        return (
            embeddings == {"token_embedding", "position_embedding"}
            and len(layers) > 0
            and all(
                {name for name, _ in layer.named_children()} == _LAYER
                and {name for name, _ in layer.self_attn.named_children()} == _ATTENTION
                and {name for name, _ in layer.mlp.named_children()} <= _MLP
                for layer in layers
            )
        )

    def forget(self) -> None:
        """Forget what was read, and what was made of the weights."""
        self.cache.clear()
        self._packed = None
        self._seen = -1

    # -------------------------------------------------------------------------------- what is asked

    def pooling_column(self, row: Sequence[int]) -> int:
        """The place whose features are the text's: the first end mark."""
        # Old configurations have a wrong end mark, and mean the highest id.
        end = self.module.eos_token_id
        if end == 2:
            return max(range(len(row)), key=row.__getitem__)
        return row.index(end) if end in row else 0

    @torch.no_grad()
    def prefixes(self, rows: Sequence[tuple[int, ...]]) -> list[KVPrefix]:
        """Keys and values of rows, through what is remembered of their beginnings."""
        held = self.cache.beginnings(rows)
        missing = {row: prefix for row, prefix in zip(rows, held, strict=True) if len(prefix) < len(row)}
        made = dict(zip(rows, held, strict=True))
        made.update(self._grow(missing))
        found = [made[row] for row in rows]
        self.cache.hold(found)
        return found

    def features(self, rows: Sequence[Sequence[int]], branches: Branches) -> Tensor:
        """Features of rows, (rows, features), of any length; differentiable."""
        lengths = [
            self.pooling_column(row) + 1 - prefix_length
            for row, prefix_length in zip(rows, branches.prefix_length, strict=True)
        ]
        order = reading_order(lengths, branches.prefix_index, self.module.final_layer_norm.weight)
        hidden, _ = self._read(
            branches.prefixes,
            [branches.prefix_index[index] for index in order],
            [branches.prefix_length[index] for index in order],
            [rows[index][branches.prefix_length[index] :][: lengths[index]] for index in order],
            None if branches.embeddings is None else (branches.embeddings, order),
            pool=True,
        )
        place = torch.tensor(order, device=hidden.device).argsort()
        return linear(self.projection, self.module.final_layer_norm(hidden))[place]

    # -------------------------------------------------------------------------------- how it is done

    def _grow(self, missing: dict[tuple[int, ...], KVPrefix]) -> dict[tuple[int, ...], KVPrefix]:
        """Read the rest of each row behind the prefix that is known."""
        if not missing:
            return {}
        order = sorted(missing, key=lambda row: len(row) - len(missing[row]))
        prefixes = tuple(missing[row] for row in order)
        fresh = [row[len(prefix) :] for row, prefix in zip(order, prefixes, strict=True)]
        prefix_length = [len(prefix) for prefix in prefixes]
        _, new = self._read(prefixes, range(len(order)), prefix_length, fresh, None, pool=False)
        # (layers, heads, all rows' new tokens, width)
        keys, values = (torch.stack(side).transpose(1, 2) for side in zip(*new, strict=True))
        found, first = {}, 0
        for row, prefix, tail in zip(order, prefixes, fresh, strict=True):
            part = slice(first, first := first + len(tail))
            found[row] = KVPrefix(
                row, _extend(prefix.keys, keys[:, :, part]), _extend(prefix.values, values[:, :, part])
            )
        return found

    def _read(
        self,
        prefixes: Sequence[KVPrefix],
        prefix_index: Sequence[int],
        prefix_length: Sequence[int],
        fresh: Sequence[Sequence[int]],
        embeddings: tuple[Tensor, Sequence[int]] | None,
        pool: bool,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Read branches' new tokens, the branches in their ``reading_order``.

        Args:
            prefixes: what the branches go on from.
            prefix_index: for each branch the number of its prefix.
            prefix_length: for each branch how many tokens of the prefix it sees.
            fresh: for each branch its new tokens, at least one.
            embeddings: (rows, length, d) of whole rows, and each branch's row; None to look tokens up.
            pool: whether the branches' last tokens are wanted rather than keys and values.

        Returns:
            Hidden states of the last tokens, (branches, d), and keys and values of all new tokens, for
            each layer (tokens, heads, width); one of both is empty.
        """
        like = self.module.final_layer_norm.weight
        layout, device = (
            Layout.of(prefixes, prefix_index, prefix_length, [len(tail) for tail in fresh], like),
            like.device,
        )
        if embeddings is None:
            ids = torch.tensor([token for tail in fresh for token in tail], device=device)
            hidden = self.module.embeddings.token_embedding(ids)
        else:
            given, rows = embeddings
            first = [row * given.shape[1] for row, tail in zip(rows, fresh, strict=True) for _ in tail]
            # On the way back one index costs less than two.
            hidden = given.flatten(0, 1).index_select(
                0, torch.tensor(first, device=device) + layout.positions
            )
        hidden = hidden + self.module.embeddings.position_embedding(layout.positions)
        known = before(prefixes, layout) or [(None, None)] * len(self.module.encoder.layers)
        gradient = torch.is_grad_enabled() and hidden.requires_grad
        packed = self._packed_blocks(gradient)
        if packed is not None and gradient:
            return read_and_differentiate(packed, hidden, known, layout), []
        blocks: Sequence[Block] = self._blocks if packed is None else packed
        collected = []
        for number, block in enumerate(blocks):
            final = number == len(blocks) - 1
            # Nobody attends to what the other tokens become.
            asking = layout.last if final and pool else None
            queries, keys, values = block.project(hidden, asking)
            if not pool:
                collected.append((keys, values))
                if final:
                    return hidden[:0], collected
            mixed = attend(queries, keys, values, known[number], layout, asking is not None)
            hidden = block.finish(hidden if asking is None else hidden[asking], mixed)
        return hidden, collected

    def _packed_blocks(self, gradient: bool) -> list[PackedBlock] | None:
        """The layers with weights prepared for oneDNN, where there are any.

        What was made of the weights holds as long as the prefixes do, which every branch goes on from: the
        cache looks at the weights when it is asked for those.
        """
        if self._seen != self.cache.changes:
            with _PREPARING:
                if self._seen != (changes := self.cache.changes):
                    self._blocks = [ModuleBlock(layer) for layer in self.module.encoder.layers]
                    self._packed = None  # First, to make room.
                    self._packed = PackedBlocks(self.module.encoder.layers)
                    self._seen = changes  # Last: until now other threads wait.
        return None if self._packed is None else self._packed.usable(gradient)


def _extend(old: Tensor | tuple[Tensor, ...], new: Tensor) -> Tensor:
    """Keys or values of all layers with those of further tokens behind them."""
    return torch.cat([old, new], 2) if isinstance(old, Tensor) else new.contiguous()

"""The causal text tower of CLIP and its kin, for many texts that share their beginnings.

``transformers`` gives these towers no cache of keys and values, so this is a forward pass of our own over
their modules: pre-norm blocks, causal attention, features at the end mark. It is used where a tower has
exactly these parts and a trial shows that both passes agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from promptfuse.models.batch import Batch
from promptfuse.models.branches import Branches, KVPrefix
from promptfuse.models.fast.attention import Layout, attend, before, reading_order
from promptfuse.models.fast.prefix import PrefixCache
from promptfuse.models.precision import at_least_float32

_PARTS = {"embeddings", "encoder", "final_layer_norm"}
_LAYER = {"self_attn", "layer_norm1", "mlp", "layer_norm2"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "out_proj"}
_MLP = {"activation_fn", "fc1", "fc2"}


class TowerReader:
    """A forward pass over the modules of a text tower such as ``CLIPTextModel``.

    Args:
        module: the tower.
        projection: from the tower's width to that of the features.
        limit: bytes of keys and values to remember.
    """

    name = "clip-tower"

    def __init__(self, module: Any, projection: nn.Module, limit: int) -> None:
        self.module = module
        self.projection = projection
        self.cache = PrefixCache(limit)
        self.longest = 2**31

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

    def clear(self) -> None:
        """Forget what was read."""
        self.cache.clear()

    # -------------------------------------------------------------------------------- what is asked

    def most_shared(self, row: Sequence[int]) -> int:
        """The tokens before the one whose features are the text's."""
        return self.pooling_column(row)

    def outputs(self, batch: Batch, branches: Branches | None) -> Float[Tensor, "rows features"]:
        """Unit features of the rows, (rows, features)."""
        if branches is None:
            raise ValueError("rows without a prefix are for the plain reader")
        return functional.normalize(at_least_float32(self.features(batch.rows, branches)), dim=-1)

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
        held = [self.cache.longest(row) for row in rows]
        missing = {row: prefix for row, prefix in zip(rows, held, strict=True) if len(prefix) < len(row)}
        made = dict(zip(rows, held, strict=True))
        made.update(self._extend_rows(missing))
        found = [made[row] for row in rows]
        self.cache.hold(found)
        return found

    def features(
        self, rows: Sequence[Sequence[int]], branches: Branches
    ) -> Float[Tensor, "{len(rows)} features"]:
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
        features: Tensor = self.projection(self.module.final_layer_norm(hidden))
        return features[place]

    # -------------------------------------------------------------------------------- how it is done

    def _extend_rows(self, missing: dict[tuple[int, ...], KVPrefix]) -> dict[tuple[int, ...], KVPrefix]:
        """Read the rest of each row after the prefix that is known."""
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
        embeddings: tuple[Float[Tensor, "rows length d"], Sequence[int]] | None,
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
        collected = []
        for number, layer in enumerate(self.module.encoder.layers):
            final = number == len(known) - 1
            # Nobody attends to what the other tokens become.
            asking = layout.last if final and pool else None
            queries, keys, values = _project(layer, hidden, asking)
            if not pool:
                collected.append((keys, values))
                if final:
                    return hidden[:0], collected
            mixed = attend(queries, keys, values, known[number], layout, asking is not None)
            hidden = _finish(layer, hidden if asking is None else hidden[asking], mixed)
        return hidden, collected


def _project(
    layer: Any, hidden: Float[Tensor, "tokens d"], asking: Int[Tensor, " queries"] | None
) -> tuple[
    Float[Tensor, "_ heads width"],
    Float[Tensor, "tokens heads width"],
    Float[Tensor, "tokens heads width"],
]:
    """Scaled queries of the tokens ``asking`` (None for all), keys and values, (tokens, heads, width)."""
    attention, normed = layer.self_attn, layer.layer_norm1(hidden)
    queries = attention.q_proj(normed if asking is None else normed[asking]) * attention.scale
    parts = (queries, attention.k_proj(normed), attention.v_proj(normed))
    queries, keys, values = (part.view(len(part), int(attention.num_heads), -1) for part in parts)
    return queries, keys, values


def _finish(
    layer: Any, hidden: Float[Tensor, "tokens d"], mixed: Float[Tensor, "tokens heads width"]
) -> Float[Tensor, "tokens d"]:
    """A layer's output, (tokens, d), of its input and of what attention made, (tokens, heads, width)."""
    hidden = hidden + layer.self_attn.out_proj(mixed.flatten(1))
    found: Tensor = hidden + layer.mlp(layer.layer_norm2(hidden))
    return found


def _extend(old: Tensor | tuple[Tensor, ...], new: Tensor) -> Tensor:
    """Keys or values of all layers with those of further tokens after them."""
    return torch.cat([old, new], 2) if isinstance(old, Tensor) else new.contiguous()

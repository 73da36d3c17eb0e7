"""The text encoders of a diffusion pipeline, one or two, as one module with one table of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from promptfuse.models.lookups import Lookup, embeddings_replaced, reading_part


@dataclass(frozen=True)
class EncoderRows:
    """What one encoder reads.

    Attributes:
        ids: (rows, length), padded to the full length.
        source: (rows, length), the column of the first encoder's row that an embedding is taken from, -1
            where it is looked up by ``ids``; None if each column is its own.
        mask: (rows, length), 1 at tokens and 0 at padding; None if padding is read like tokens.
    """

    ids: Int[Tensor, "rows length"]
    source: Int[Tensor, "rows length"] | None = None
    mask: Int[Tensor, "rows length"] | None = None


class JointEmbedding(nn.Module):
    """The embeddings of a token in several encoders, side by side.

    A gradient at them has one part for each encoder, and its product with a row of the joint table is the sum
    of the encoders' products: no transport need know that there are two.

    Args:
        tables: the encoders' own look-ups.
    """

    def __init__(self, tables: Sequence[nn.Embedding]) -> None:
        super().__init__()
        self.tables = tuple(tables)  # A tuple: as modules they belong to the encoders.

    @property
    def weight(self) -> Float[Tensor, "vocabulary _"]:
        """The first table, which has as many rows as each."""
        return self.tables[0].weight

    def forward(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape d"]:
        """The joint embeddings of ids, (..., d), d being the sum of the encoders' widths."""
        return torch.cat([table(ids) for table in self.tables], -1)


class TextEncoders(nn.Module):
    """CLIP text encoders whose hidden states stand side by side, as a UNet attends to them.

    Args:
        encoders: one (Stable Diffusion 1 and 2) or two (SDXL).
        penultimate: whether the states before the last layer are taken, as in SDXL (Podell et al., 2023,
            arXiv 2307.01952, section 2.1), rather than those after the last layer norm.
    """

    def __init__(self, encoders: Sequence[nn.Module], penultimate: bool) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.penultimate = penultimate
        configs: list[Any] = [encoder.config for encoder in encoders]
        self.widths = [int(config.hidden_size) for config in configs]
        self.config = SimpleNamespace(
            max_position_embeddings=min(config.max_position_embeddings for config in configs),
            hidden_size=sum(self.widths),
            intermediate_size=sum(config.intermediate_size for config in configs),
        )
        tables = [self._table(encoder) for encoder in encoders]
        self.embedding = tables[0] if len(tables) == 1 else JointEmbedding(tables)

    @staticmethod
    def _table(encoder: nn.Module) -> nn.Embedding:
        return cast(nn.Embedding, encoder.get_input_embeddings())  # type: ignore[operator]

    def get_input_embeddings(self) -> nn.Module:
        """The module that turns ids into the embeddings of all encoders."""
        return self.embedding

    def forward(self, rows: Sequence[EncoderRows]) -> Float[Tensor, "rows positions d"]:
        """What a UNet is told of texts: hidden states of all positions, and SDXL's pooled text after them.

        Args:
            rows: what each encoder reads.

        Returns:
            (rows, length, d); (rows, length + 1, d) with a pooled text, which is padded with zeros to d.
        """
        parts = self.embedding(rows[0].ids).split(self.widths, -1)
        states, pooled = [], None
        for encoder, own, part in zip(self.encoders, rows, parts, strict=True):
            table = self._table(encoder)
            if own.source is not None:
                index = own.source.clamp(min=0)[..., None].expand_as(part)
                part = torch.where((own.source < 0)[..., None], table(own.ids), part.gather(1, index))
            # CLIP's text encoder takes no embeddings, so they replace what it looks up. They are those of
            # these very rows, even if the caller gave embeddings for more.
            these = torch.arange(len(own.ids), device=own.ids.device)
            with embeddings_replaced((Lookup(table),), part), reading_part(these, own.ids.shape[1]):
                found = encoder(
                    input_ids=own.ids, attention_mask=own.mask, output_hidden_states=self.penultimate
                )
            if pooled is None and found[0].dim() == 2:
                pooled = found[0]
            states.append(found.hidden_states[-2] if self.penultimate else found.last_hidden_state)
        joint = torch.cat(states, -1)
        if pooled is None:
            return joint
        return torch.cat([joint, functional.pad(pooled, (0, joint.shape[-1] - pooled.shape[-1]))[:, None]], 1)

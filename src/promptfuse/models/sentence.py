"""Sentence encoders: text encoders whose pooled hidden states are features."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import normalizers
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from promptfuse.errors import TextError
from promptfuse.models.base import Batch, Model, at_least_float32
from promptfuse.models.identity import tensors_digest
from promptfuse.models.sentence_files import Layout


class SentenceEncoder(Model):
    """A sentence encoder: unit features of texts, near for texts of like meaning.

    Sentence-BERT (Reimers & Gurevych, 2019, section 3), and any encoder whose hidden states are averaged
    over the tokens, special ones included. No prompt is put before a text, also where a
    sentence-transformers model names a default one: give the term a prefix.

    Args:
        module: a model whose output has a ``last_hidden_state``.
        tokenizer: its fast tokenizer; changed to the layout's length and case.
        name: the hub id or folder that it came from.
        layout: how hidden states become features; by default their mean.
    """

    kind = "sentence-encoder"

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        name: str,
        layout: Layout | None = None,
    ) -> None:
        super().__init__(module, tokenizer, name)
        layout = layout or Layout()
        self.pooling = layout.pooling
        wide = torch.promote_types(module.dtype, torch.float32)
        self.head = layout.head.eval().requires_grad_(False).to(self.device, wide)
        if layout.max_length is not None:
            tokenizer.model_max_length = min(tokenizer.model_max_length, layout.max_length)
        if layout.lower_case:
            backend = tokenizer.backend_tokenizer
            parts = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
            backend.normalizer = normalizers.Sequence(parts)

    def settings(self) -> dict[str, Any]:
        """See ``Model.settings``; with the pooling and what is behind it."""
        head = {"layers": str(self.head), "weights": tensors_digest(self.head.state_dict().items())}
        return {**super().settings(), "pooling": list(self.pooling), "head": head}

    @property
    def text_module(self) -> nn.Module:
        """The whole model; T5's encoder, which looks up in a table that shares the whole model's weights."""
        module: nn.Module = self.module.encoder if hasattr(self.module, "shared") else self.module
        return module

    def text_features(self, batch: Batch) -> Tensor:
        """Unit features of encoded texts, (rows, d), at least float32; differentiable.

        Raises:
            TextError: if a text has no tokens.
        """
        if not bool(batch.mask.any(1).all()):
            raise TextError(f"{self.name} makes no token of an empty text; give at least one word")
        return self.read_apart(batch, self.read_padded)

    def read_padded(self, batch: Batch) -> Tensor:
        """See ``Model.read_padded``: unit features."""
        counts = batch.mask.sum(1)
        hidden = self.call(batch).last_hidden_state
        hidden, inside = at_least_float32(hidden), batch.mask[:, :, None].bool()
        pooled = []
        for pooling in self.pooling:
            if pooling == "cls":
                pooled.append(hidden[:, 0])
            elif pooling == "lasttoken":
                pooled.append(hidden[torch.arange(len(hidden), device=hidden.device), counts - 1])
            elif pooling == "max":
                pooled.append(hidden.masked_fill(~inside, -torch.inf).amax(1))
            else:
                pooled.append(hidden.masked_fill(~inside, 0).sum(1) / counts[:, None])
        features = torch.cat(pooled, dim=1)
        return functional.normalize(self.head(features), dim=-1)

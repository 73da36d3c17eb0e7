"""Sentence encoders: text encoders whose pooled hidden states are features."""

from __future__ import annotations

from typing import Any, Self

import torch
import transformers
from jaxtyping import Float
from tokenizers import normalizers
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from promptfuse.errors import TextError
from promptfuse.models.base import Batch, Model, Parts
from promptfuse.models.identity import tensors_digest
from promptfuse.models.precision import at_least_float32
from promptfuse.models.registry import models
from promptfuse.models.sentence_files import Layout
from promptfuse.models.wrapping import without_head

_T5_TYPES = ("t5", "mt5", "umt5")
"""Encoder-decoders whose encoder alone is a sentence encoder."""
_ENCODER_TYPES = (
    "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet",
    "roberta", "xlm-roberta",
)  # fmt: skip


@models.register("sentence-encoder")
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

    @classmethod
    def matches_config(cls, config: Any, architectures: tuple[str, ...]) -> bool:
        """Whether the model is an encoder without a head for another task."""
        # BERT and its kin read in both directions unless they are configured as decoders.
        encoder = config.model_type in _ENCODER_TYPES and not getattr(config, "is_decoder", False)
        ends = ("Model", "ForMaskedLM", "ForPreTraining", "ForConditionalGeneration")
        return (encoder or config.model_type in _T5_TYPES) and all(
            name.endswith(ends) and not name.endswith("LMHeadModel") for name in architectures
        )

    @classmethod
    def loader(cls, config: Any) -> Any:
        """The automatic class without a head; of T5, with the encoder alone."""
        if config.model_type in _T5_TYPES:
            return transformers.AutoModelForTextEncoding
        return transformers.AutoModel

    @classmethod
    def from_parts(cls, parts: Parts) -> Self:
        """The model without a head of its own, with the layout of its files."""
        return cls(without_head(parts.module), parts.tokenizer, parts.name, parts.layout)

    def settings(self) -> dict[str, Any]:
        """What decides beside the weights what the model says, the pooling and its layers included."""
        head = {"layers": str(self.head), "weights": tensors_digest(self.head.state_dict().items())}
        return {**super().settings(), "pooling": list(self.pooling), "head": head}

    @property
    def text_module(self) -> nn.Module:
        """The whole model; T5's encoder, which looks up in a table that shares the whole model's weights."""
        module: nn.Module = self.module.encoder if hasattr(self.module, "shared") else self.module
        return module

    def text_features(self, batch: Batch) -> Float[Tensor, "rows d"]:
        """Unit features of encoded texts, (rows, d), at least float32; differentiable.

        Raises:
            TextError: if a text has no tokens.
        """
        return self.outputs(batch)

    def _read_whole(self, batch: Batch) -> Float[Tensor, "rows d"]:
        if not bool(batch.mask.any(1).all()):
            raise TextError(f"{self.name} has no tokens for an empty text; give at least one word")
        return super()._read_whole(batch)

    def read_padded(self, batch: Batch) -> Float[Tensor, "rows d"]:
        """Unit features, (rows, d), in one pass over padded rows."""
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

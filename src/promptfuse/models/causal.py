"""Causal language models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from promptfuse.errors import TextError
from promptfuse.models.base import Batch, Model


class CausalLM(Model):
    """A causal language model: next-token distributions and the NLL of texts.

    A text is read behind the model's begin-of-text token where it has one, so that its first token
    has a probability too.
    """

    kind = "causal-lm"

    @property
    def text_module(self) -> nn.Module:
        """The whole model."""
        return self.module

    @property
    def start_ids(self) -> tuple[int, ...]:
        """What stands before every text: the begin-of-text token, or nothing."""
        config = self.module.config
        for value in (self.tokenizer.bos_token_id, getattr(config, "bos_token_id", None), self.tokenizer.eos_token_id):
            if isinstance(value, int):
                return (value,)
        return ()

    @property
    def end_ids(self) -> frozenset[int]:
        """The ids that end a text."""
        found = {self.tokenizer.eos_token_id}
        configured = getattr(self.module.config, "eos_token_id", None)
        found |= set(configured) if isinstance(configured, list) else {configured}
        return frozenset(value for value in found if isinstance(value, int))

    def plain_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without any special token."""
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def token_rows(self, texts: Sequence[str]) -> tuple[list[list[int]], list[tuple[int, int]]]:
        """Begin-of-text and the text's own tokens; see ``Model.token_rows``.

        The tokenizer's own template is not used: whether it adds a begin or an end mark differs
        between models, and the NLL of a text should not.
        """
        start = list(self.start_ids)
        rows = [start + ids for ids in self.plain_ids(texts)]
        for text, row in zip(texts, rows, strict=True):
            if not row:
                raise TextError(f"{self.name}: {text!r} has no tokens; give a text that is not empty")
        self.check(texts, rows)
        return rows, [(len(start), len(row)) for row in rows]

    def nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Summed NLL in nats and the number of tokens predicted, both (rows,); differentiable."""
        logits = self.module(input_ids=batch.ids, attention_mask=batch.mask).logits[:, :-1].float()
        losses = functional.cross_entropy(logits.transpose(1, 2), batch.ids[:, 1:], reduction="none")
        valid = batch.mask[:, 1:].to(losses.dtype)
        return (losses * valid).sum(1), valid.sum(1)

    @torch.no_grad()
    def next_log_probabilities(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Log-probabilities of the token behind each row, (rows, vocabulary), float32.

        Args:
            rows: token ids without the begin-of-text token; a row may be empty if the model has one.
        """
        start = list(self.start_ids)
        full = [start + list(row) for row in rows]
        if not all(full):
            raise TextError(f"{self.name} has no begin-of-text token, so it cannot begin a text; give a prefix")
        batch = self.collate(full, [(len(start), len(row)) for row in full])
        last = torch.tensor([len(row) - 1 for row in full], device=self.device)
        # Only the last position's logits are needed: the vocabulary projection is the larger half of a
        # small model, so it runs on one position a row.
        base = self.module.base_model(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        hidden = base[torch.arange(len(full), device=self.device), last]
        head = self.module.get_output_embeddings()
        if head is None or _has_extras_behind_head(self.module):
            logits = self.module(input_ids=batch.ids, attention_mask=batch.mask).logits
            return logits[torch.arange(len(full), device=self.device), last].float().log_softmax(-1)
        return head(hidden).float().log_softmax(-1)


def _has_extras_behind_head(module: nn.Module) -> bool:
    """Whether the model does more than a matrix product behind its last hidden state."""
    config = module.config
    names = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "word_embed_proj_dim")
    values = [getattr(config, name, None) for name in names]
    plain_projection = values[-1] in (None, getattr(config, "hidden_size", None))
    return any(value not in (None, 1, 1.0) for value in values[:-1]) or not plain_projection

"""Causal language models."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import torch
import transformers
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from promptfuse._utils.batched_calls import batched_call
from promptfuse._utils.prefix_cache import prefix_cache_disabled
from promptfuse.errors import TextError
from promptfuse.models.base import Batch, Parts
from promptfuse.models.batch import TokenLoss
from promptfuse.models.batching import prefix_bytes, token_budget
from promptfuse.models.causal_rows import CausalRows
from promptfuse.models.fast.choice import Trial
from promptfuse.models.fast.kv import KVReader
from promptfuse.models.fast.protocol import PrefixReader
from promptfuse.models.precision import at_least_float32, token_losses
from promptfuse.models.registry import models

_DECODER_TYPES = ("gpt_neox", "gpt_neox_japanese")
"""Causal whatever their ``is_decoder`` says, which is false unless it is set."""

_ROWS_AT_ONCE = 64
"""Rows whose keys and values are held at the same time."""


@models.register("causal-lm")
class CausalLM(CausalRows):
    r"""A causal language model: next-token distributions and the NLL of texts.

    A text is read after the model's begin-of-text token where it has one, so that its first token
    has a probability too; a text that brings its own gets no second one.

    Args:
        module: the loaded model.
        tokenizer: its fast tokenizer.
        name: the hub id or folder that it came from.
        start: what stands before every text:

            * ``auto``: the begin-of-text token, or what stands between documents if that is a token of a
              chat (``<|im_start|>``) or there is none;
            * ``bos``: the begin-of-text token, whatever it is;
            * ``none``: nothing;
            * a special token, such as ``<|endoftext|>``;
            * a chat template with a slot for the text, such as
              ``<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n``; what is after the slot stands
              between the text and what ``TargetContinuation`` wants;
            * ``chat``: the tokenizer's own template, with the slot in the user's turn.

    Attributes:
        context: what else stands before every text, see ``behind``.

    Raises:
        ConfigError: if there is no such start.
        ModelError: if the tokenizer is not a fast one.
    """

    kind = "causal-lm"

    @classmethod
    def matches_config(cls, config: Any, architectures: tuple[str, ...]) -> bool:
        """Whether the model predicts the next token."""
        decoder = config.model_type in _DECODER_TYPES or getattr(config, "is_decoder", True)
        heads = ("ForCausalLM", "LMHeadModel")
        return decoder and any(part in name for part in heads for name in architectures)

    @classmethod
    def loader(cls, config: Any) -> Any:
        """The automatic class with a head for the next token."""
        del config
        return transformers.AutoModelForCausalLM

    @classmethod
    def from_parts(cls, parts: Parts) -> Self:
        """The model with its start."""
        return cls(parts.module, parts.tokenizer, parts.name, parts.start)

    @property
    def logits_width(self) -> int:
        """The vocabulary."""
        return len(self.embedding_table)

    def nll(self, batch: Batch) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
        """Summed NLL in nats and the number of tokens predicted, both (rows,); differentiable.

        Placeholders are read but not predicted: the probability of a word that is not chosen yet has no
        meaning.
        """
        losses = self.token_nll(batch)
        return losses.sum(1), batch.predicted.sum(1)

    def content_nll(self, batch: Batch) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
        """As ``nll``, of the rows' content alone: given what stands before it, such as a context."""
        starts = [start for start, _ in batch.text_spans]
        if max(starts, default=0) <= 1:
            return self.nll(batch)
        losses, valid = self.token_nll(batch, [start - 1 for start in starts]), batch.predicted
        columns = torch.arange(1, batch.mask.shape[1], device=valid.device)
        inside = (columns >= torch.tensor(starts, device=valid.device)[:, None]).to(valid.dtype)
        return (losses * inside).sum(1), (valid * inside).sum(1)

    def token_nll(
        self, batch: Batch, first: Sequence[int] | None = None, loss: TokenLoss | None = None
    ) -> Float[Tensor, "rows {batch.ids.shape[1]-1}"]:
        """NLL in nats of every token but the first of each row, (rows, length - 1); differentiable.

        Zero where nothing is predicted: at the padding and at placeholders. Column k is the token in
        column k + 1 of the batch.

        Args:
            batch: the rows.
            first: for each row the first column that is asked for; what stands before it may be wrong.
                None for all.
            loss: another loss of the tokens, from their logits; with ``first`` only.
        """
        return self.outputs(replace(batch, first_scored=first, token_loss=loss))

    def _read_whole(self, batch: Batch) -> Float[Tensor, "rows {batch.ids.shape[1]-1}"]:
        width = batch.ids.shape[1] - 1

        def read(part: Batch) -> Float[Tensor, "rows _"]:
            found = self.read_padded(part)
            return functional.pad(found, (0, width - found.shape[1]))

        return self.read_apart(batch, read)

    def read_padded(self, batch: Batch) -> Float[Tensor, "rows {batch.ids.shape[1]-1}"]:
        """NLL in nats of every token but the first, (rows, length - 1), in one pass over padded rows."""
        logits = self.call(batch).logits[:, :-1]
        target = batch.ids[:, 1:]
        # The vocabulary in the last dimension: across rows, sums over large ones are off by more than 1e-4.
        losses = token_losses(at_least_float32(logits).flatten(0, 1), target.flatten(), batch.token_loss)
        return losses.view(target.shape) * batch.predicted

    @cached_property
    def reader(self) -> PrefixReader:
        """What reads rows whose beginnings are known; one for all contexts."""
        return super().reader if self._plain is None else self._plain.reader

    def _fast_readers(self) -> tuple[Sequence[PrefixReader], Trial | None]:
        special = {*self.tokenizer.all_special_ids, self.pad_id}
        ids = [index for index in range(len(self.embedding_table)) if index not in special][-40:]
        verdict = self.verdict
        few = len(ids) < 4 or self.max_length < 8
        if few or not verdict.batched or verdict.causal < 8 or not KVReader.takes(self.module):
            return (), None
        readers = [
            KVReader(
                self.module,
                token_budget(self.device, self.bytes_per_token),
                prefix_bytes(self.device),
                mode,
                keeps_logits=self._keeps_logits,
                lookups=self.lookups,
                # What a longer row gives, its beginnings do not.
                longest=min(verdict.causal, verdict.border),
            )
            for mode in ("tree", "rows")
        ]
        return readers, self._trial(ids, (), self.max_length)

    @property
    def n_unscored(self) -> int:
        """The last token: nothing is predicted from it."""
        return 1

    @torch.no_grad()
    def next_log_probabilities(
        self, rows: Sequence[Sequence[int]], reuse: bool = True
    ) -> Float[Tensor, "{len(rows)} vocabulary"]:
        """Log-probabilities of the token after each row, (rows, vocabulary), at least float32.

        Args:
            rows: token ids without the begin-of-text token and the context's; a row may be empty if there
                is either.
            reuse: whether to go on from the beginnings of rows that are remembered from earlier calls.

        Raises:
            TextError: if a row and the begin-of-text token are more than the model has positions.
        """
        full = [self.row(row)[0] for row in rows]
        if not all(full):
            raise TextError(
                f"{self.name} has no begin-of-text token, so it cannot begin a text; give a prefix"
            )
        if (longest := max(map(len, full))) > self.max_length:
            raise TextError(
                f"{self.name}: a text has {longest} tokens, the model reads at most {self.max_length}; "
                "shorten it"
            )
        if reuse and not prefix_cache_disabled():
            return batched_call(("next", id(self)), full, self._next_of_several)
        return self._next(full, reuse=False)

    def _next_of_several(self, asked: Sequence[list[list[int]]]) -> list[Float[Tensor, "_ vocabulary"]]:
        """Next-token log-probabilities of several searches' rows, in one go."""
        found = self._next([row for rows in asked for row in rows], reuse=True)
        return list(torch.split(found, [len(rows) for rows in asked]))

    @torch.no_grad()
    def _next(self, full: list[list[int]], reuse: bool) -> Float[Tensor, "{len(full)} vocabulary"]:
        """See `next_log_probabilities`; of rows with the begin-of-text token."""
        longest = max(map(len, full))
        if reuse and isinstance(reader := self.reader, KVReader) and longest <= reader.longest:
            found = []
            for first in range(0, len(full), _ROWS_AT_ONCE):
                part = [tuple(row) for row in full[first : first + _ROWS_AT_ONCE]]
                with self.fast_products():
                    prefixes = reader.prefixes(part, nll=False)
                found += [item.following for item in prefixes if item.following is not None]
            return self.of_all_ids(torch.stack(found))
        batch = self.collate(full, [(len(self.start_ids), len(row)) for row in full])
        return self.of_all_ids(self.read_apart(batch, self._following))

    def of_all_ids(self, log_probabilities: Float[Tensor, "*rows _"]) -> Float[Tensor, "*rows vocabulary"]:
        """Log-probabilities with a column for each row of the embedding table.

        Some models read more ids than they predict: placeholders, or tokens added to the table alone.
        """
        missing = len(self.embedding_table) - log_probabilities.shape[-1]
        return functional.pad(log_probabilities, (0, max(0, missing)), value=-torch.inf)

    def _following(self, batch: Batch) -> Float[Tensor, "rows vocabulary"]:
        """Log-probabilities of the token after each row of a batch, in one pass."""
        last = torch.tensor([len(row) - 1 for row in batch.rows], device=self.device)
        keep: Tensor = last.unique()  # type: ignore[no-untyped-call]
        # The vocabulary projection is the larger half of a small model, so it runs only on the columns
        # that some row ends in; beams have nearly the same length.
        few = {"logits_to_keep": keep} if self._keeps_logits else {}
        logits = self.call(batch, **few).logits
        columns = torch.searchsorted(keep, last) if self._keeps_logits else last
        chosen = logits[torch.arange(len(last), device=self.device), columns]
        return at_least_float32(chosen).log_softmax(-1)

    @cached_property
    def _keeps_logits(self) -> bool:
        """Whether the model can be asked for the logits of some columns only."""
        return "logits_to_keep" in inspect.signature(self.module.forward).parameters

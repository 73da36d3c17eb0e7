"""Causal language models."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from promptfuse.errors import TextError
from promptfuse.models.base import REMEMBERED_PARTS, Batch, Model, at_least_float32
from promptfuse.models.batching import prefix_bytes, token_budget
from promptfuse.models.kv import CausalReader
from promptfuse.models.prefix import Branches, Prefix, reads_whole
from promptfuse.models.together import together
from promptfuse.segments import LastSegmentEncoder

_ROWS_AT_ONCE = 64
"""Rows whose keys and values are held at the same time."""


class CausalLM(Model):
    """A causal language model: next-token distributions and the NLL of texts.

    A text is read behind the model's begin-of-text token where it has one, so that its first token
    has a probability too.
    """

    kind = "causal-lm"

    @property
    def text_module(self) -> nn.Module:
        """The whole model."""
        module: nn.Module = self.module
        return module

    @property
    def start_ids(self) -> tuple[int, ...]:
        """What stands before every text: the begin-of-text token, or nothing."""
        config = self.module.config
        for value in (
            self.tokenizer.bos_token_id,
            getattr(config, "bos_token_id", None),
            self.tokenizer.eos_token_id,
        ):
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
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return ids

    def grown_ids(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """``plain_ids`` of texts that grow at the end: what has been encoded before is put together."""
        if reads_whole():
            return [tuple(ids) for ids in self.plain_ids(texts)]
        return [text.ids for text in self.encoder.encode_many(texts)]

    @cached_property
    def encoder(self) -> LastSegmentEncoder:
        """See ``Model.encoder``; of the texts' own tokens."""
        return LastSegmentEncoder(self.tokenizer, REMEMBERED_PARTS, special=False)

    def encode_grown(self, texts: Sequence[str]) -> tuple[list[list[int]], list[tuple[int, int]]]:
        """See ``Model.encode_grown``."""
        start = self.start_ids
        rows = [[*start, *ids] for ids in self.grown_ids(texts)]
        return rows, [(len(start), len(row)) for row in rows]

    def encode_rows(self, texts: Sequence[str]) -> tuple[list[list[int]], list[tuple[int, int]]]:
        """Begin-of-text and the text's own tokens; see ``Model.token_rows``.

        The tokenizer's own template is not used: whether it adds a begin or an end mark differs
        between models, and the NLL of a text should not.
        """
        start = list(self.start_ids)
        rows = [start + ids for ids in self.plain_ids(texts)]
        return rows, [(len(start), len(row)) for row in rows]

    def check(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        """Raise where a text has no tokens, or does not fit; see ``Model.token_rows``."""
        for text, row in zip(texts, rows, strict=True):
            if not row:
                raise TextError(f"{self.name}: {text!r} has no tokens; give a text that is not empty")
        super().check(texts, rows)

    @property
    def logits_width(self) -> int:
        """The vocabulary."""
        return len(self.embedding_table)

    def nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Summed NLL in nats and the number of tokens predicted, both (rows,); differentiable.

        Placeholders are read but not predicted: the probability of a word that is not chosen yet has no
        meaning.
        """
        losses = self.token_nll(batch)
        return losses.sum(1), self.predicted(batch).sum(1)

    def predicted(self, batch: Batch) -> Tensor:
        """Where a column but the first is a token that the model predicts, (rows, length - 1) of 0 and 1."""
        valid = batch.mask[:, 1:].to(torch.float32)
        return valid if batch.open is None else valid * ~batch.open[:, 1:]

    def token_nll(self, batch: Batch, first: Sequence[int] | None = None) -> Tensor:
        """NLL in nats of every token but the first of each row, (rows, length - 1); differentiable.

        Zero where nothing is predicted: at the padding and at placeholders. Column k is the token in
        column k + 1 of the batch.

        Args:
            batch: the rows.
            first: for each row the first column that is asked for; what stands before it may be wrong.
                None for all.
        """
        if batch.branches is not None and self.reader is not None:
            return self.reader.nll(batch.rows, batch.branches, first) * self.predicted(batch)
        logits = self.module(input_ids=batch.ids, attention_mask=batch.mask).logits[:, :-1]
        losses = functional.cross_entropy(
            at_least_float32(logits).transpose(1, 2), batch.ids[:, 1:], reduction="none"
        )
        return losses * self.predicted(batch)

    @cached_property
    def reader(self) -> CausalReader | None:
        """What reads rows behind their known beginnings; None where rows have to be read whole."""
        special = {*self.tokenizer.all_special_ids, self.pad_id}
        ids = [index for index in range(len(self.embedding_table)) if index not in special][-4:]
        if len(ids) < 4 or self.max_length < 8:
            return None
        budget = token_budget(self.device, self.bytes_per_token)
        reader = CausalReader.of(self.module, ids, budget, prefix_bytes(self.device))
        if reader is not None:
            reader.keeps_logits = self._keeps_logits
        return reader

    @property
    def unread(self) -> int:
        """The last token: nothing is predicted from it."""
        return 1

    def prefixes(self, rows: Sequence[tuple[int, ...]]) -> list[Prefix] | None:
        """See ``Model.prefixes``; with the NLL of the rows' own tokens."""
        if self.reader is None or max(map(len, rows), default=0) >= self.reader.longest:
            return None
        return self.reader.prefixes(rows, nll=True)

    def grow(self, rows: Sequence[Sequence[int]], parents: Sequence[Sequence[int]]) -> Branches | None:
        """See ``Model.grow``."""
        if self.reader is None or max(map(len, rows), default=0) > self.reader.longest:
            return None
        return super().grow(rows, parents)

    @torch.no_grad()
    def next_log_probabilities(self, rows: Sequence[Sequence[int]], reuse: bool = True) -> Tensor:
        """Log-probabilities of the token behind each row, (rows, vocabulary), at least float32.

        Args:
            rows: token ids without the begin-of-text token; a row may be empty if the model has one.
            reuse: whether to go on from the beginnings of rows that are remembered from earlier calls.

        Raises:
            TextError: if a row and the begin-of-text token are more than the model has positions.
        """
        start = list(self.start_ids)
        full = [start + list(row) for row in rows]
        if not all(full):
            raise TextError(
                f"{self.name} has no begin-of-text token, so it cannot begin a text; give a prefix"
            )
        if (longest := max(map(len, full))) > self.max_length:
            raise TextError(
                f"{self.name}: a text has {longest} tokens, the model takes {self.max_length}; shorten it"
            )
        if reuse and not reads_whole():
            return together(("next", id(self)), full, self._next_of_several)
        return self._next(full, reuse=False)

    def _next_of_several(self, asked: Sequence[list[list[int]]]) -> list[Tensor]:
        """Next-token log-probabilities of several searches' rows, in one go."""
        found = self._next([row for rows in asked for row in rows], reuse=True)
        return list(torch.split(found, [len(rows) for rows in asked]))

    @torch.no_grad()
    def _next(self, full: list[list[int]], reuse: bool) -> Tensor:
        """See `next_log_probabilities`; of rows with the begin-of-text token."""
        longest = max(map(len, full))
        if reuse and self.reader is not None and longest <= self.reader.longest:
            found = []
            for first in range(0, len(full), _ROWS_AT_ONCE):
                part = [tuple(row) for row in full[first : first + _ROWS_AT_ONCE]]
                prefixes = self.reader.prefixes(part, nll=False)
                found += [item.following for item in prefixes if item.following is not None]
            return torch.stack(found)
        batch = self.collate(full, [(len(self.start_ids), len(row)) for row in full])
        last = torch.tensor([len(row) - 1 for row in full], device=self.device)
        keep: Tensor = last.unique()  # type: ignore[no-untyped-call]
        # The vocabulary projection is the larger half of a small model, so it runs only on the columns
        # that some row ends in; beams have nearly the same length.
        few = {"logits_to_keep": keep} if self._keeps_logits else {}
        logits = self.module(input_ids=batch.ids, attention_mask=batch.mask, **few).logits
        columns = torch.searchsorted(keep, last) if self._keeps_logits else last
        chosen = logits[torch.arange(len(full), device=self.device), columns]
        return at_least_float32(chosen).log_softmax(-1)

    @cached_property
    def _keeps_logits(self) -> bool:
        """Whether the model can be asked for the logits of some columns only."""
        return "logits_to_keep" in inspect.signature(self.module.forward).parameters

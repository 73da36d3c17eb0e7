"""Texts as rows of token ids, and rows as batches: what needs only a tokenizer and an embedding table."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from promptfuse._utils.prefix_cache import prefix_cache_disabled
from promptfuse.errors import ModelError, TextError
from promptfuse.models.batch import Batch
from promptfuse.text.segments import LastSegmentEncoder

REMEMBERED_PARTS = 16384
"""Beginnings, and last words, of texts whose ids each tokenizer remembers."""

Spans = list[tuple[int, int]]
"""For each row the half-open range between the special tokens in front and those at the end."""


class TextRows:
    """Encodes texts for a model."""

    tokenizer: PreTrainedTokenizerFast
    name: str

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the parameters are."""

    @property
    @abstractmethod
    def text_module(self) -> nn.Module:
        """The part that reads token ids."""

    @property
    @abstractmethod
    def embedding_table(self) -> Float[Tensor, "vocabulary d"]:
        """Input embeddings of all ids, (rows, d); rows may outnumber the tokenizer's ids."""

    @property
    def pad_id(self) -> int:
        """The id that fills short rows."""
        for value in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if isinstance(value, int):
                return value
        return 0

    @cached_property
    def max_length(self) -> int:
        """The most tokens a row may have, special tokens included."""
        config = self.text_module.config
        found = [
            value
            for name in ("max_position_embeddings", "n_positions", "max_seq_len")
            # XLNet's has no limit, and says -1.
            if isinstance(value := getattr(config, name, None), int) and value > 0
        ]
        for name, module in self.text_module.named_modules():
            # RoBERTa and its kin count positions from the end of the padding's, so that the first rows of
            # their tables stand for no token.
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
                found.append(len(module.weight) - int(module.padding_idx) - 1)
        found.append(self.tokenizer.model_max_length)
        return int(min(found))

    def token_rows(self, texts: Sequence[str]) -> tuple[list[list[int]], list[tuple[int, int]]]:
        """Token ids of each text with the model's special tokens, and the range between those.

        Raises:
            TextError: if a text has more tokens than the model has positions.
            ModelError: if a token id has no row in the embedding table.
        """
        rows, content = self.encode_rows(texts)
        self.check(texts, rows)
        return rows, content

    def cached_rows(self, texts: Sequence[str]) -> tuple[list[list[int]], list[tuple[int, int]]]:
        """``token_rows`` of texts that grow at the end: what has been encoded before is put together.

        Raises:
            TextError, ModelError: as ``token_rows`` does.
        """
        rows, content = self.encode_cached(texts)
        self.check(texts, rows)
        return rows, content

    def encode_cached(self, texts: Sequence[str]) -> tuple[list[list[int]], list[tuple[int, int]]]:
        """``cached_rows`` without its checks."""
        if prefix_cache_disabled():
            return self.encode_rows(texts)
        found = self.encoder.encode_many(texts)
        return [list(text.ids) for text in found], [(text.start, text.stop) for text in found]

    @cached_property
    def encoder(self) -> LastSegmentEncoder:
        """Encodes texts that grow at the end; what it remembers changes no result."""
        return LastSegmentEncoder(self.tokenizer, REMEMBERED_PARTS)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The texts of token ids, as they stand: nothing is left out or tidied up."""
        tokenizer = self.tokenizer
        if type(tokenizer)._decode is PreTrainedTokenizerFast._decode:
            # What comes of it at last, without looking at each id in Python.
            read = tokenizer.backend_tokenizer.decode
            return [read(list(row), skip_special_tokens=False) for row in rows]
        return list(tokenizer.batch_decode(list(rows), clean_up_tokenization_spaces=False))

    def unterminated_rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text that may go on: without the special tokens after it, of any length."""
        rows, content = self.encode_cached(texts)
        return [row[:stop] for row, (_, stop) in zip(rows, content, strict=True)]

    def encode_rows(self, texts: Sequence[str]) -> tuple[list[list[int]], list[tuple[int, int]]]:
        """``token_rows`` without its checks."""
        encoded = self.tokenizer(list(texts), return_special_tokens_mask=True, verbose=False)
        rows: list[list[int]] = encoded["input_ids"]
        content = []
        for row, special in zip(rows, encoded["special_tokens_mask"], strict=True):
            start, stop = 0, len(row)
            while start < stop and special[start]:
                start += 1
            while stop > start and special[stop - 1]:
                stop -= 1
            content.append((start, stop))
        return rows, content

    def check(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        """Raise where a text does not fit the model; see ``token_rows``."""
        if isinstance(texts, str):  # Else its letters would be read one by one.
            raise TextError(f"{texts!r:.60} is one text; give a list of texts")
        limit, table_rows = self.max_length, len(self.embedding_table)
        if (
            max(map(len, rows), default=0) <= limit
            and max(map(max, filter(None, rows)), default=0) < table_rows
        ):
            return
        for text, row in zip(texts, rows, strict=True):
            if len(row) > limit:
                shown = text if len(text) <= 40 else text[:37] + "..."
                raise TextError(
                    f"{self.name}: {shown!r} has {len(row)} tokens, the model reads at most {limit}; "
                    "shorten it"
                )
            if row and max(row) >= table_rows:
                raise ModelError(
                    f"{self.name}: the tokenizer gives id {max(row)}, the embedding table has {table_rows} "
                    "rows; use the tokenizer that belongs to the model"
                )

    def collate(self, rows: Sequence[Sequence[int]], content: Sequence[tuple[int, int]]) -> Batch:
        """Pad rows on the right into one batch on the model's device."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, self.pad_id, np.int64)
        ids[mask] = np.fromiter(chain.from_iterable(rows), np.int64, lengths.sum())
        read, there = torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))
        return Batch(read.to(self.device), there.to(self.device), tuple(content), rows=rows)

    def encode(self, texts: Sequence[str]) -> Batch:
        """Encode texts afresh, (len(texts), longest).

        Raises:
            TextError: if there is no text, or one has more tokens than the model has positions.
            ModelError: if a token id has no row in the embedding table.
        """
        if not texts:
            raise TextError("no text given; give at least one")
        return self.collate(*self.token_rows(texts))

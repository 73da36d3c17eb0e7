"""The tokens of SDXL's second encoder, as its own tokenizer makes them.

Both encoders have one vocabulary, and so the ids of a text are the same but for two things. Short texts are
filled up with another id. And that id's string, ``!``, is a special token of the second tokenizer, so that it
is cut out of words before these are looked up: ``dog!`` ends with another id, ``wow!!`` with one more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from promptfuse.errors import ModelError
from promptfuse.models.batch import Batch
from promptfuse.models.diffusion_text import EncoderRows

_SAME = ("model", "normalizer", "pre_tokenizer", "post_processor")
"""The parts of two tokenizers that must agree, so that one row of ids stands for both."""


class SecondTokenizer:
    """Turns rows of the first tokenizer's ids into those that the second would have made of the text.

    Args:
        first: the tokenizer that reads texts.
        second: the other one.
        name: what errors call the pipeline.

    Raises:
        ModelError: if they have different vocabularies or rules.
    """

    def __init__(self, first: PreTrainedTokenizerFast, second: PreTrainedTokenizerFast, name: str) -> None:
        # As that of the first, it must not depend on whether it has been called before.
        second.backend_tokenizer.no_truncation()
        second.backend_tokenizer.no_padding()
        self.first, self.second = first, second
        own, other = (json.loads(each.backend_tokenizer.to_str()) for each in (first, second))
        marks, others = (_added(values) for values in (other, own))
        same = all(own[part] == other[part] for part in _SAME)
        if not same or others - marks or first.model_max_length != second.model_max_length:
            raise ModelError(
                f"{name}: its two tokenizers differ; only pipelines whose text encoders share a vocabulary "
                "are supported"
            )
        self.marks = sorted(marks - others)
        self.end = own["model"].get("end_of_word_suffix") or ""
        strings: dict[str, int] = first.get_vocab()
        self.marked = {
            index for string, index in strings.items() if any(map(string.__contains__, self.marks))
        }
        self.word_ends = {index for string, index in strings.items() if string.endswith(self.end)}
        self._of_word = lru_cache(4096)(self._read_word)

    def rows(self, batch: Batch) -> EncoderRows:
        """What the second encoder reads in the place of a batch, whose rows are padded to the full length."""
        pad: Any = self.second.pad_token_id
        there = batch.mask.bool()
        ids = torch.where(there, batch.ids, pad)
        columns = torch.arange(ids.shape[1], device=ids.device)
        source = torch.where(there, columns, -1)
        if self.marked:
            lengths = batch.mask.sum(1).tolist()
            for number, (row, length) in enumerate(zip(batch.ids.tolist(), lengths, strict=True)):
                if self.marked.isdisjoint(row[:length]):
                    continue
                slot = () if batch.placeholder_mask is None else batch.placeholder_mask[number].tolist()
                own, places = self._read_row(row[:length], slot)
                free = ids.shape[1] - len(own)
                ids[number] = torch.tensor([*own, *[pad] * free], device=ids.device)
                source[number] = torch.tensor([*places, *[-1] * free], device=ids.device)
        return EncoderRows(ids, source)

    def _read_row(self, row: list[int], slot: Sequence[bool]) -> tuple[list[int], list[int]]:
        """The ids of a row, and for each the column that it is read from; -1 where it has no like there."""
        own: list[int] = []
        places: list[int] = []
        for start, stop in self._words(row, slot):
            word = tuple(row[start:stop])
            if self.marked.isdisjoint(word) or (slot and slot[start]):
                own += word
                places += range(start, stop)
            else:
                found = self._of_word(word)
                own += found
                places += [-1] * len(found)
        limit = int(self.second.model_max_length)
        if len(own) > limit:  # As the pipeline does, of which the end mark is kept.
            own, places = [*own[: limit - 1], own[-1]], [*places[: limit - 1], places[-1]]
        return own, places

    def _words(self, row: list[int], slot: Sequence[bool]) -> Iterator[tuple[int, int]]:
        """The ranges of columns that are words, special tokens or placeholders."""
        alone = {*self.first.all_special_ids}
        start = 0
        for column, token in enumerate(row):
            single = token in alone or (bool(slot) and slot[column])
            if single and column > start:
                yield start, column
                start = column
            if single or token in self.word_ends:
                yield start, column + 1
                start = column + 1
        if start < len(row):
            yield start, len(row)

    def _read_word(self, word: tuple[int, ...]) -> list[int]:
        text = self.first.decode(list(word), clean_up_tokenization_spaces=False)
        return list(self.second(text, add_special_tokens=False, verbose=False)["input_ids"])


def _added(tokenizer: dict[str, Any]) -> set[str]:
    return {token["content"] for token in tokenizer["added_tokens"]}

"""What every kind of model shares: encoding, the embedding table, gradients at the embeddings."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from promptfuse.errors import ModelError, PromptfuseWarning, TextError
from promptfuse.models.batch import Batch
from promptfuse.models.batching import bytes_per_token
from promptfuse.models.fast.onednn_weights import PACKED
from promptfuse.models.fast.prefix import (
    Branches,
    KVPrefix,
    at_least_float32,
    common_length,
    prefix_cache_disabled,
)
from promptfuse.models.finite import check_finite
from promptfuse.models.identity import DIGITS, Weights, digest, settings_of
from promptfuse.models.lookups import (
    Lookup,
    embeddings_replaced,
    find_lookups,
    found_embeddings,
    reading_part,
)
from promptfuse.models.trial import Verdict, is_differentiable, trial_row, try_out
from promptfuse.text.segments import LastSegmentEncoder

__all__ = ["Batch", "Model", "at_least_float32"]

REMEMBERED_PARTS = 16384
"""Beginnings, and last words, of texts whose ids each tokenizer remembers."""


class Model(ABC):
    """A frozen Hugging Face model in one role.

    The module is put into evaluation mode and its parameters take no gradients: only the text moves. What is
    computed of the weights is kept, so they must stay as they are while the model is wrapped; whoever changes
    them all the same calls ``clear_cache``.

    Args:
        module: the loaded model.
        tokenizer: its fast tokenizer.
        name: the hub id or folder that it came from.

    Raises:
        ModelError: if the tokenizer is not a fast one, or a weight is NaN or infinite.
    """

    kind: ClassVar[str]

    def __init__(self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                f"{name}: the tokenizer has no fast version, which gives the spans of tokens; "
                "convert it to a tokenizer.json"
            )
        # Some tokenizer.json files carry a truncation or padding of their own; no text may be cut here,
        # and the fingerprint must not depend on whether the tokenizer has been called before.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        check_finite(module, name)
        self.module = module.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.weights = Weights(self.module)
        self.generation = 0  # Of what is kept elsewhere: it goes up when the weights have changed.

    def __repr__(self) -> str:
        """The role and the name."""
        return f"{type(self).__name__}({self.name!r})"

    def forget(self) -> None:
        """Forget what was remembered of the texts read so far: memory is freed, results do not change.

        What comes next is computed as if nothing had been read before, to the last bit.
        """
        for reader in (self.__dict__.get("reader"), self.__dict__.get("tower")):
            if reader is not None:
                reader.forget()
        PACKED.drop(self.module.parameters())
        if "encoder" in self.__dict__:
            self.encoder.forget_texts()

    def clear_cache(self) -> None:
        """Drop all that was computed of the weights: call it when you have changed them.

        Weights are frozen while a model is wrapped. What is made of them is kept: packed weights, what
        prefixes of texts came to, tables of embeddings, checksums, transports of gradients, and the
        trials that tell which fast path holds. Some changes are noticed, but not all, such as an edit of a
        few rows. Terms and searches keep values of their own, such as the features of photos: make them
        anew.

        Raises:
            ModelError: if a weight is NaN or infinite now.
        """
        self.forget()
        self.weights.clear()
        for kind in type(self).__mro__:
            for name, value in vars(kind).items():
                if isinstance(value, cached_property):
                    self.__dict__.pop(name, None)
        self.__dict__.pop("_transports", None)
        self.weights.clear()
        self.generation += 1
        check_finite(self.module, self.name)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        device: torch.device = next(self.module.parameters()).device
        return device

    @property
    @abstractmethod
    def text_module(self) -> nn.Module:
        """The part that reads token ids."""

    @property
    def embedding(self) -> nn.Module:
        """The module that turns token ids into input embeddings.

        Raises:
            ModelError: if there is none, as in a model that reads characters by their hashes.
        """
        try:
            module = self.text_module.get_input_embeddings()  # type: ignore[operator]
        except (NotImplementedError, AttributeError):  # GroupViT's tower does not say.
            module = None
        if isinstance(getattr(module, "weight", None), Tensor):
            return cast(nn.Module, module)
        # Perceiver names a tensor that is of no text.
        found = [part for part in self.text_module.modules() if isinstance(part, nn.Embedding)]
        if not found:
            raise ModelError(
                f"{self.name}: {type(self.module).__name__} has no table of token embeddings; "
                "use another model"
            )
        return max(found, key=lambda part: part.num_embeddings)

    @property
    def embedding_table(self) -> Tensor:
        """Input embeddings of all ids, (rows, d); rows may outnumber the tokenizer's ids."""
        module = self.embedding
        if type(module) is nn.Embedding:
            # The parameter itself, as long as it takes no gradient: what is made of it can be kept.
            return module.weight.detach() if module.weight.requires_grad else module.weight
        return self._embedded

    @cached_property
    def _embedded(self) -> Tensor:
        weight: Tensor = self.embedding.weight  # type: ignore[assignment]
        with torch.no_grad():
            # Some architectures scale or normalise behind the look-up; the module's output is what counts.
            return self.embed(torch.arange(len(weight), device=self.device))

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings of ids, (..., d)."""
        return found_embeddings(self.embedding(ids))

    @cached_property
    def lookups(self) -> tuple[Lookup, ...]:
        """The modules by which ids become input embeddings, found by a trial; see ``Lookup``."""
        row, content = trial_row(self, min(12, self.max_length))
        batch = self.collate([row], [content])
        with torch.no_grad():
            expected = self.embed(batch.ids)
            return find_lookups(
                self.module, lambda: self.read_padded(batch), batch.ids, expected, self.embedding
            )

    @cached_property
    def verdict(self) -> Verdict:
        """Which rows may be read in one pass, found by a trial.

        Raises:
            ModelError: if the model reads no row, or the same row differently each time.
        """
        return try_out(self)

    @cached_property
    def has_gradient(self) -> bool:
        """Whether gradients come back to the input embeddings, found by a trial; a warning says if not."""
        found = is_differentiable(self)
        if not found:
            self.warn_of_zero_gradient()
        return found

    def warn_of_zero_gradient(self) -> None:
        """Say, the first time, that a gradient at a text is zero everywhere."""
        if self.__dict__.setdefault("_warned", False):
            return
        self.__dict__["_warned"] = True
        warnings.warn(
            f"{self.name}: the gradient of {type(self.module).__name__} at the text is zero, so its terms "
            "only rank texts",
            PromptfuseWarning,
            stacklevel=3,
        )

    def read_padded(self, batch: Batch) -> Tensor:
        """What the model makes of the rows of a batch in one pass, (rows, ...); differentiable.

        Not everything may stand in one batch with anything: see ``read_apart``. A kind of model that says
        nothing else is tried out by the mean of its text module's first output over the tokens.
        """
        hidden: Tensor = self.text_module(input_ids=batch.ids, attention_mask=batch.mask)[0]
        read = batch.mask.to(hidden)[..., None]
        return (hidden * read).sum(1) / read.sum(1)

    def read_apart(self, batch: Batch, read: Callable[[Batch], Tensor]) -> Tensor:
        """What ``read`` makes of a batch, (rows, ...), in parts where rows would change each other."""
        rows = batch.rows
        lengths = [len(row) for row in rows]
        groups = self.verdict.groups(lengths)
        if len(groups) == 1:
            return read(batch)
        found = []
        for group in groups:
            longest = max(lengths[row] for row in group)
            with reading_part(torch.tensor(group, device=batch.ids.device), longest):
                found.append(read(batch.part(group, longest)))
        place = torch.tensor([row for group in groups for row in group], device=batch.ids.device).argsort()
        return torch.cat(found)[place]

    def call(self, batch: Batch, **options: Any) -> Any:
        """One pass of the module over a batch."""
        # Nothing goes on from here, and some models cannot differentiate what they keep for later (RWKV).
        given = {"attention_mask": batch.mask, "use_cache": False} | options
        return self.module(
            input_ids=batch.ids,
            **{name: value for name, value in given.items() if name in self._taken or name in options},
        )

    @cached_property
    def _taken(self) -> frozenset[str]:
        """The names of what the module takes; not every one wants to know where padding is (FNet)."""
        return frozenset(inspect.signature(self.module.forward).parameters)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the embedding table and the tokenizer, first 16 hexadecimal digits.

        All that an adapter depends on. Models that differ elsewhere may share it; see ``identity``.
        """
        found = hashlib.sha256()
        table = self.embedding_table.to(device="cpu", dtype=torch.float32).contiguous()
        found.update(table.numpy().tobytes())
        found.update(self.tokenizer.backend_tokenizer.to_str().encode())
        return found.hexdigest()[:DIGITS]

    @property
    def identity(self) -> str:
        """SHA-256 of all that decides what the model says, first 16 hexadecimal digits.

        All weights and saved buffers with their types, the configuration, the tokenizer, and what else
        belongs to a model of its kind, such as an image processor. Two models with the same identity are the
        same one, wherever their files are.
        """
        return digest([self.weights.digest, self._settings])

    @cached_property
    def _settings(self) -> str:
        """A checksum of the identity's parts but the weights."""
        return digest(self.settings())

    def settings(self) -> dict[str, Any]:
        """What decides beside the weights what the model says, in plain values."""
        tokenizer = self.tokenizer
        config = getattr(self.module, "config", None)
        return {
            "kind": self.kind,
            "module": type(self.module).__name__,
            "config": settings_of(config.to_dict()) if config is not None else None,
            "tokenizer": tokenizer.backend_tokenizer.to_str(),
            "special_tokens": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
            "longest": int(tokenizer.model_max_length),
            "chat_template": getattr(tokenizer, "chat_template", None),
        }

    def describe(self) -> dict[str, str]:
        """Name, fingerprint and identity, as results and run folders have them."""
        return {"name": self.name, "fingerprint": self.fingerprint, "identity": self.identity}

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
            # RoBERTa and its kin count positions from behind the padding's, so that the first rows of
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
        rows, content = self.encode_grown(texts)
        self.check(texts, rows)
        return rows, content

    def encode_grown(self, texts: Sequence[str]) -> tuple[list[list[int]], list[tuple[int, int]]]:
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
        """Token ids of each text that may go on: without the special tokens behind it, of any length."""
        rows, content = self.encode_grown(texts)
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
                    f"{self.name}: {shown!r} has {len(row)} tokens, the model takes {limit}; shorten it"
                )
            if row and max(row) >= table_rows:
                raise ModelError(
                    f"{self.name}: the tokenizer gives id {max(row)}, the embedding table has {table_rows} "
                    "rows; use the tokenizer that belongs to the model"
                )

    @cached_property
    def bytes_per_token(self) -> int:
        """Memory that a token takes in a forward pass."""
        itemsize = next(self.module.parameters()).element_size()
        return bytes_per_token(self.text_module.config, itemsize, self.logits_width)

    @property
    def n_unscored(self) -> int:
        """How many tokens at the end of a row behind a prefix need no reading, only predicting."""
        return 0

    @property
    def logits_width(self) -> int:
        """How many numbers come out for every single token; none from most models."""
        return 0

    def prefixes(self, rows: Sequence[tuple[int, ...]]) -> list[KVPrefix] | None:
        """Keys and values of the beginnings of rows, for ``Batch.branches``.

        Returns:
            One for each row; None if the model has to read every row whole, as bidirectional ones do.
        """
        del rows
        return None

    def most_shared(self, row: Sequence[int]) -> int:
        """How many tokens of a row may come from a prefix: all but those whose outputs are asked for."""
        return len(row) - 1

    def match_prefixes(
        self, rows: Sequence[Sequence[int]], parents: Sequence[Sequence[int]]
    ) -> Branches | None:
        """What rows share with the rows that they grew from.

        Args:
            rows: token ids, special tokens included.
            parents: for each row the beginning of its parent's row, without what closes it.

        Returns:
            Where each row goes on from; None if the model has to read every row whole.
        """
        if prefix_cache_disabled():
            return None
        prefix_length = [
            min(common_length(row, parent), self.most_shared(row))
            for row, parent in zip(rows, parents, strict=True)
        ]
        # A parent may be longer than the model takes, its children's common beginning is not.
        numbers: dict[tuple[int, ...], int] = {}
        seen: dict[int, int] = {}  # Children of one parent are given the very same list.
        for parent in parents:
            if id(parent) not in seen:
                seen[id(parent)] = numbers.setdefault(tuple(parent), len(numbers))
        prefix_index = tuple(seen[id(parent)] for parent in parents)
        reach = [0] * len(numbers)
        for number, length in zip(prefix_index, prefix_length, strict=True):
            reach[number] = max(length, reach[number])
        prefixes = self.prefixes([parent[:length] for parent, length in zip(numbers, reach, strict=True)])
        return None if prefixes is None else Branches(tuple(prefixes), prefix_index, tuple(prefix_length))

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
            raise TextError("there is no text to read; give at least one")
        return self.collate(*self.token_rows(texts))

    @contextmanager
    def embeddings_from(self, embeddings: Tensor) -> Iterator[None]:
        """Make the next forward pass use these input embeddings in place of the look-up.

        Not every text tower takes ``inputs_embeds`` (CLIP's does not), but every one has an embedding
        module, whose output a hook can replace.

        Args:
            embeddings: (rows, length, d), for the very ids that the forward pass is given.
        """
        # A trial within the block would be given these embeddings too.
        assert self.verdict is not None
        with embeddings_replaced(self.lookups, embeddings):
            yield

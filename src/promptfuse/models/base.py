"""What every kind of model shares: encoding, the embedding table, gradients at the embeddings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
import transformers
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from promptfuse._utils.prefix_cache import disable_prefix_cache, prefix_cache_disabled
from promptfuse.errors import ModelError
from promptfuse.models.batch import Batch
from promptfuse.models.branches import Branches, common_length
from promptfuse.models.fast.choice import Trial, choose_reader
from promptfuse.models.fast.products import FastProducts
from promptfuse.models.fast.protocol import PlainReader, PrefixReader
from promptfuse.models.finite import check_finite
from promptfuse.models.forward import ForwardPass
from promptfuse.models.identity import DIGITS, Weights, digest, settings_of
from promptfuse.models.text_rows import REMEMBERED_PARTS

__all__ = [
    "REMEMBERED_PARTS",
    "Batch",
    "Model",
    "disable_prefix_cache",
    "prefix_cache_disabled",
]


@dataclass(frozen=True)
class Parts:
    """What a kind of model is made of.

    Attributes:
        module: the loaded model.
        tokenizer: its fast tokenizer.
        name: the hub id or folder that it came from.
        config: its configuration.
        start: what stands before every text of a causal language model.
        layout: how a sentence encoder's hidden states become features; None for others.
        processor: gives the image processor; None if there is none.
        tokenizer_class: the class that the tokenizer's files name, or None.
    """

    module: Any
    tokenizer: Any
    name: str
    config: Any
    start: str = "auto"
    layout: Any = None
    processor: Callable[[], Any] | None = None
    tokenizer_class: str | None = None


class Model(ForwardPass):
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
                f"{name}: the tokenizer has no fast version, which is needed for the spans of tokens; "
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
        self._fast = True
        self.generation = 0  # Of what is kept elsewhere: it goes up when the weights have changed.

    @classmethod
    def matches_config(cls, config: Any, architectures: tuple[str, ...]) -> bool:
        """Whether a model with this configuration is of this kind.

        Args:
            config: the configuration of transformers.
            architectures: the names of the model's classes.
        """
        del config, architectures
        return False

    @classmethod
    def loader(cls, config: Any) -> Any:
        """The class of transformers whose ``from_pretrained`` makes the module."""
        del config
        return transformers.AutoModel

    @classmethod
    def from_parts(cls, parts: Parts) -> Self:
        """The model of what was loaded.

        Raises:
            ModelError: if something is missing.
        """
        return cls(parts.module, parts.tokenizer, parts.name)

    def __repr__(self) -> str:
        """The role and the name."""
        return f"{type(self).__name__}({self.name!r})"

    def clear_text_cache(self) -> None:
        """Forget what was remembered of the texts read so far: memory is freed, results do not change.

        What comes next is computed as if nothing had been read before, to the last bit.
        """
        if "reader" in self.__dict__:
            self.reader.clear()
        self._products.clear()
        if "encoder" in self.__dict__:
            self.encoder.forget_texts()

    def clear_cache(self) -> None:
        """Drop all that was computed of the weights: call it when you have changed them.

        Weights are frozen while a model is wrapped. What is made of them is kept: packed weights, what
        prefixes of texts came to, tables of embeddings, checksums, transports of gradients, and the
        trials that tell which fast path holds. Changes are not noticed. Terms and searches keep values of
        their own, such as the features of photos: make them anew.

        Raises:
            ModelError: if a weight is NaN or infinite now.
        """
        self.clear_text_cache()
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
    def fast(self) -> bool:
        """Whether faster ways than a plain batched forward pass may be taken; see ``load_model``."""
        return self._fast and os.environ.get("PROMPTFUSE_FAST", "") != "0"

    @cached_property
    def reader(self) -> PrefixReader:
        """What reads rows whose beginnings are known: a faster way if a trial shows that it holds."""
        candidates, trial = self._fast_readers() if self.fast else ((), None)
        return choose_reader(self.name, PlainReader(self._read_whole), candidates, trial)

    def _fast_readers(self) -> tuple[Sequence[PrefixReader], Trial | None]:
        """Readers that should hold for the model, the fastest first, and what they are tried on."""
        return (), None

    def _trial(self, ids: Sequence[int], tail: tuple[int, ...], longest: int) -> Trial:
        """A trial of rows of these ids, each with the tail at its end."""
        coarse = torch.finfo(next(self.module.parameters()).dtype).eps > 1e-4

        def collate(rows: Sequence[Sequence[int]]) -> Batch:
            return self.collate(rows, [(0, len(row) - len(tail)) for row in rows])

        return Trial(ids, tail, longest, collate, 0.05 if coarse else 1e-4, self.fast_products)

    @cached_property
    def _products(self) -> FastProducts:
        return FastProducts(self.module)

    @contextmanager
    def fast_products(self) -> Iterator[None]:
        """A block in which the module's linear layers multiply by the faster of torch's libraries."""
        with self._products() if self.fast else nullcontext():
            yield

    def outputs(self, batch: Batch) -> Float[Tensor, "rows *_"]:
        """What the model says of a batch, (rows, ...); differentiable with respect to the input embeddings.

        Causal language models give the NLL of each token, (rows, length - 1); encoders give unit features,
        (rows, d); classifiers give log-probabilities of their labels, (rows, labels).
        """
        if batch.branches is None:
            return self._read_whole(batch)
        with self.fast_products():
            return self.reader.outputs(batch, batch.branches)

    def _read_whole(self, batch: Batch) -> Float[Tensor, "rows *_"]:
        return self.read_apart(batch, self.read_padded)

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
        """Name, fingerprint and identity, as results and run folders have them.

        These tell models apart. How a model reads texts is not among them: see ``reader``.
        """
        return {"name": self.name, "fingerprint": self.fingerprint, "identity": self.identity}

    @property
    def n_unscored(self) -> int:
        """How many tokens at the end of a row are predicted, but need not be read."""
        return 0

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
        reader = self.reader
        if prefix_cache_disabled() or max(map(len, rows), default=0) > reader.longest:
            return None
        prefix_length = [
            min(common_length(row, parent), reader.most_shared(row))
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
        with self.fast_products():
            found = reader.prefixes([parent[:length] for parent, length in zip(numbers, reach, strict=True)])
        return Branches(tuple(found), prefix_index, tuple(prefix_length))

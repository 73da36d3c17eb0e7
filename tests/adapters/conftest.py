"""Tiny random models with tokenizers of three families, trained on a few sentences."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tests.tokenizer_training import train_bpe, train_word_piece

TEXT = [
    "the quick brown fox jumps over the lazy dog and a small cat sits on the mat in front of two people",
    "a photo of a man riding a wave on top of a surfboard while the sun goes down behind the mountains",
    "The visitors of the Museum drink several cups of tea; it isn't wonderful, but nobody complains loudly.",
    "children are playing football in the playground near the beautiful old church with a yellow tower",
] * 5
ALPHABET = pre_tokenizers.ByteLevel.alphabet()


@dataclass(frozen=True)
class Model:
    """An embedding table with a tokenizer: all that adapters ask of a model."""

    name: str
    tokenizer: PreTrainedTokenizerFast
    embedding_table: Tensor

    @cached_property
    def fingerprint(self) -> str:
        table = hashlib.sha256(self.embedding_table.numpy().tobytes())
        table.update(self.tokenizer.backend_tokenizer.to_str().encode())
        return table.hexdigest()


def wrap(made: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


def byte_level(size: int = 440) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    train_bpe(made, TEXT, size, ["<|endoftext|>"], ALPHABET)
    return wrap(made, eos_token="<|endoftext|>")


def clip(size: int = 480) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<end>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"'s|'t|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    train_bpe(made, TEXT, size, ["<start>", "<end>"], ALPHABET)
    made.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return wrap(made, unk_token="<end>")


def word_piece(size: int = 60) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    train_word_piece(made, TEXT, size, ["[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return wrap(made, unk_token="[UNK]", mask_token="[MASK]")


def metaspace(size: int = 300) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    train_bpe(made, TEXT, size, ["<unk>", "</s>"])
    return wrap(made, unk_token="<unk>", eos_token="</s>")


BUILDERS = {"byte-level": byte_level, "clip": clip, "word-piece": word_piece, "metaspace": metaspace}


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    return {family: build() for family, build in BUILDERS.items()}


@pytest.fixture(scope="session")
def make_model(tokenizers: dict[str, PreTrainedTokenizerFast]) -> Callable[..., Model]:
    """Make a model of a tokenizer family, a width and a seed; ``rows`` may be other than the tokens."""

    def make(family: str, d: int, seed: int = 0, rows: int | None = None) -> Model:
        tokenizer = tokenizers[family]
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(rows or len(tokenizer), d, generator=generator)
        return Model(f"{family}-{seed}", tokenizer, table)

    return make


@pytest.fixture(scope="session")
def text_words() -> dict[str, float]:
    """Every word of the training text with its count."""
    counts: dict[str, float] = {}
    for line in TEXT:
        for word in line.split():
            counts[f" {word}"] = counts.get(f" {word}", 0.0) + 1.0
    return counts

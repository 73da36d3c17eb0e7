"""Published tokenizers, read from the shared data folder beside the repository where there is one.

Each comes in the format of its publisher, and is made into a fast tokenizer of its own class.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import transformers
from tokenizers import pre_tokenizers
from transformers.convert_slow_tokenizer import generate_merges

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "tokenizers"


def gpt2(folder: Path) -> Any:
    """OpenAI's encoder.json and vocab.bpe."""
    vocab = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
    return transformers.GPT2Tokenizer(vocab=vocab, merges=_merges(lines))


def clip(folder: Path) -> Any:
    """The merges of OpenAI's CLIP; its vocabulary follows from them, as in its simple_tokenizer.py."""
    with gzip.open(folder / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as stream:
        merges = _merges(stream.read().split("\n")[1 : 49152 - 256 - 2 + 1])
    # The bytes in the order of OpenAI's table: printable ones first.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), key=lambda letter: (ord(letter) > 255, letter))
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges)


def llama2(folder: Path) -> Any:
    """Meta's SentencePiece model."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    vocab = {model.id_to_piece(index): index for index in range(model.get_piece_size())}
    scores = {piece: model.get_score(index) for piece, index in vocab.items()}
    return transformers.LlamaTokenizer(vocab=vocab, merges=generate_merges(vocab, scores))


def bert(folder: Path) -> Any:
    """BERT's tokenizer.json and tokenizer_config.json."""
    return transformers.BertTokenizer.from_pretrained(folder)


def bart(folder: Path) -> Any:
    """BART's tokenizer.json, whose vocabulary is RoBERTa's."""
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


def t5(folder: Path) -> Any:
    """T5's tokenizer.json."""
    return transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), unk_token="<unk>", eos_token="</s>"
    )


_LOADERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "real gpt2": ("gpt2", gpt2),
    "real clip": ("clip", clip),
    "real llama2": ("llama2", llama2),
    "real bert": ("bert_uncased", bert),
    "real bart": ("bart_roberta", bart),
    "real t5": ("t5", t5),
}

NAMES = tuple(name for name, (folder, _) in _LOADERS.items() if (FOLDER / folder).is_dir())
"""Those that are there."""


@cache
def load(name: str) -> Any:
    """The named tokenizer."""
    folder, loader = _LOADERS[name]
    return loader(FOLDER / folder)


def _merges(lines: list[str]) -> list[tuple[str, str]]:
    pairs = [line.split() for line in lines if line]
    return [(left, right) for left, right in pairs]

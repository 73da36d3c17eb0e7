"""Models of real sizes with random weights, and tokenizers of real sizes trained on the built-in word list.

Speed does not depend on the weights. Nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from promptfuse.models import CausalLM, ImageTextModel


@dataclass(frozen=True)
class Size:
    """Sizes of the two models and their tokenizers.

    Attributes:
        words: how many of the list's words the tokenizers are trained on.
        lm_vocabulary: rows of the language model's table, all of them tokens.
        clip_vocabulary: rows of the text tower's table.
        clip_tokens: how many of those are tokens, fewer than there are so that a word takes 1 to 1.5 of them.
        lm: width, depth and heads of the language model.
        clip: width, depth and heads of the text tower.
    """

    words: int
    lm_vocabulary: int
    clip_vocabulary: int
    clip_tokens: int
    lm: tuple[int, int, int]
    clip: tuple[int, int, int]


REAL = Size(30_000, 50_257, 49_408, 32_000, (768, 12, 12), (512, 12, 8))
"""GPT-2 (124M) and the text tower of CLIP ViT-B/32."""

TINY = Size(600, 1_400, 1_500, 1_300, (32, 2, 2), (32, 2, 2))
"""For a quick trial."""


@cache
def words(count: int) -> list[str]:
    """So many words, the most frequent first."""
    table = resources.files("promptfuse.adapters").joinpath("words_en.tsv").read_text("utf-8")
    return [line.split("\t")[0] for line in table.splitlines()[:count]]


def _byte_pairs(tokenizer: Tokenizer, count: int, size: int, **options: Any) -> Tokenizer:
    """Train byte-level BPE on words, frequent ones more often; the rest of the vocabulary is filled up."""
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        **options,
    )
    known = words(count)
    repeats = (
        f" {word} {word.capitalize()}" * (1 + 20000 // (rank + 1000)) for rank, word in enumerate(known)
    )
    tokenizer.train_from_iterator(repeats, trainer)
    return tokenizer


@cache
def gpt2_tokenizer(size: Size) -> Any:
    """Byte-level BPE as GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _byte_pairs(tokenizer, size.words, size.lm_vocabulary - 1)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        model_max_length=1024,
    )


@cache
def clip_tokenizer(size: Size) -> Any:
    """Byte-level BPE as CLIP's: lower case, with marks at the ends of words."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("</w>", "Ġ"), decoders.ByteLevel(), decoders.Strip(" ", 0, 1)]
    )
    _byte_pairs(tokenizer, size.words, size.clip_tokens - 2, end_of_word_suffix="</w>")
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    begin, end = (tokenizer.token_to_id(token) for token in ("<|startoftext|>", "<|endoftext|>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", begin), ("<|endoftext|>", end)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|startoftext|>", eos_token="<|endoftext|>",
        pad_token="<|endoftext|>", model_max_length=77, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def gpt2(
    size: Size = REAL, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0
) -> CausalLM:
    """GPT-2."""
    tokenizer = gpt2_tokenizer(size)
    torch.manual_seed(seed)
    end = tokenizer.eos_token_id
    width, depth, heads = size.lm
    config = transformers.GPT2Config(
        vocab_size=size.lm_vocabulary, bos_token_id=end, eos_token_id=end, n_embd=width, n_layer=depth,
        n_head=heads,
    )  # fmt: skip
    module = transformers.GPT2LMHeadModel(config).to(device=device, dtype=dtype)
    return CausalLM(module, tokenizer, "gpt2-shapes")


def clip(
    size: Size = REAL, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0
) -> ImageTextModel:
    """CLIP with a vision tower of one layer, which is run once a photo."""
    tokenizer = clip_tokenizer(size)
    width, depth, heads = size.clip
    torch.manual_seed(seed + 1)
    text = transformers.CLIPTextConfig(
        vocab_size=size.clip_vocabulary, hidden_size=width, intermediate_size=4 * width,
        num_hidden_layers=depth, num_attention_heads=heads, projection_dim=width,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = transformers.CLIPVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1, image_size=32
    )
    config = transformers.CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=width
    )
    crop = {"height": 32, "width": 32}
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=crop)
    module = transformers.CLIPModel(config).to(device=device, dtype=dtype)
    # At their initial size, weights leave every text with nearly the same features.
    with torch.no_grad():
        for parameter in module.text_model.embeddings.parameters():
            parameter.mul_(25)
    return ImageTextModel(module, tokenizer, processor, "clip-shapes")


def photo(seed: int = 0) -> Image.Image:
    """A photo of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def prompt(count: int, size: Size = REAL, seed: int = 0) -> str:
    """A text of words that are one token in both vocabularies."""
    generator = np.random.default_rng(seed)
    lm, encoder = gpt2_tokenizer(size), clip_tokenizer(size)
    known = words(min(size.words, 5000))
    chosen: list[str] = []
    while len(chosen) < count:
        word = known[int(generator.integers(len(known)))]
        spaced = lm([f" {word}"], add_special_tokens=False)["input_ids"][0]
        if len(spaced) == 1 and len(encoder([word])["input_ids"][0]) == 3 and word not in chosen:
            chosen.append(word)
    return " ".join(chosen)

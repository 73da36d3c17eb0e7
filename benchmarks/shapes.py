"""Models of real sizes with random weights, and tokenizers of real sizes trained on the built-in word list.

Speed does not depend on the weights. Nothing is downloaded.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from promptfuse.models import CausalLM, ImageTextModel

GPT2_VOCABULARY = 50257
CLIP_VOCABULARY = 49408


@cache
def words() -> list[str]:
    """Words, the most frequent first."""
    table = resources.files("promptfuse.adapters").joinpath("words_en.tsv").read_text("utf-8")
    return [line.split("\t")[0] for line in table.splitlines()]


def _byte_pairs(tokenizer: Tokenizer, size: int, **options: Any) -> Tokenizer:
    """Train byte-level BPE on words, frequent ones more often; the rest of the vocabulary is filled up."""
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        **options,
    )
    known = words()
    repeats = (
        f" {word} {word.capitalize()}" * (1 + 20000 // (rank + 1000)) for rank, word in enumerate(known)
    )
    tokenizer.train_from_iterator(repeats, trainer)
    return tokenizer


@cache
def gpt2_tokenizer() -> Any:
    """Byte-level BPE as GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _byte_pairs(tokenizer, GPT2_VOCABULARY - 1)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        model_max_length=1024,
    )


@cache
def clip_tokenizer() -> Any:
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
    # Half the room for whole words of the list, so that a word takes 1 to 1.5 tokens.
    _byte_pairs(tokenizer, 32_000, end_of_word_suffix="</w>")
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


def gpt2(device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0) -> CausalLM:
    """GPT-2, 124M parameters."""
    tokenizer = gpt2_tokenizer()
    torch.manual_seed(seed)
    end = tokenizer.eos_token_id
    config = transformers.GPT2Config(vocab_size=GPT2_VOCABULARY, bos_token_id=end, eos_token_id=end)
    module = transformers.GPT2LMHeadModel(config).to(device=device, dtype=dtype)
    return CausalLM(module, tokenizer, "gpt2-shapes")


def clip(device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0) -> ImageTextModel:
    """CLIP with the text tower of ViT-B/32 and a vision tower of one layer, which is run once a photo."""
    tokenizer = clip_tokenizer()
    torch.manual_seed(seed + 1)
    text = transformers.CLIPTextConfig(
        vocab_size=CLIP_VOCABULARY, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = transformers.CLIPVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1, image_size=32
    )
    config = transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    size = {"height": 32, "width": 32}
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size)
    module = transformers.CLIPModel(config).to(device=device, dtype=dtype)
    # At their initial size, weights leave every text with nearly the same features.
    with torch.no_grad():
        for parameter in module.text_model.embeddings.parameters():
            parameter.mul_(25)
    return ImageTextModel(module, tokenizer, processor, "clip-shapes")


def photo(seed: int = 0) -> Image.Image:
    """A photo of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def prompt(count: int, seed: int = 0) -> str:
    """A text of words that are one token in both vocabularies."""
    generator = np.random.default_rng(seed)
    lm, encoder = gpt2_tokenizer(), clip_tokenizer()
    chosen: list[str] = []
    while len(chosen) < count:
        word = words()[int(generator.integers(50, 5000))]
        spaced = lm([f" {word}"], add_special_tokens=False)["input_ids"][0]
        if len(spaced) == 1 and len(encoder([word])["input_ids"][0]) == 3 and word not in chosen:
            chosen.append(word)
    return " ".join(chosen)

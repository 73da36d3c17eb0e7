"""A tokenizer of each family, learned from a few sentences."""

from __future__ import annotations

import json
from typing import Any

import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tests.tokenizer_training import train_bpe, train_unigram, train_word_piece

SENTENCES = (
    "A brown dog runs through the green grass.",
    "Two children are playing football in the park.",
    "A man in a red shirt rides a bicycle down the street.",
    "The woman holds a small white cat in her arms.",
    "An old train stands at the station in the snow.",
    "A boat is sailing on the blue water near the beach.",
    "Several people are sitting around a wooden table with food.",
    "A black bird is flying over the mountains at sunset.",
    "The little girl is smiling at the camera.",
    "A group of horses is standing in a field of flowers.",
    "What a wonderful film, the best that I have seen this year!",
    "The plot is dull and the acting is terrible.",
    "I don't think it's worth 10 dollars, but we'll see.",
    "A delicious cake with strawberries on a white plate.",
    "An image of a tall building under a cloudy sky.",
    "The surfer is riding a huge wave in the ocean.",
    "Café crème, naïve résumé: straße 日本 🙂",
) * 3


def _byte_level(specials: list[str]) -> dict[str, Any]:
    """Byte-level BPE trained on the sentences, as vocabulary and merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    train_bpe(tokenizer, SENTENCES, 420, specials, pre_tokenizers.ByteLevel.alphabet())
    return _learned(tokenizer)


def _learned(tokenizer: Tokenizer) -> dict[str, Any]:
    model = json.loads(tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model.get("merges", ())]}


def gpt2_tokenizer() -> Any:
    return transformers.GPT2Tokenizer(**_byte_level(["<|endoftext|>"]), model_max_length=40)


def opt_tokenizer() -> Any:
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    return transformers.GPT2Tokenizer(
        **_byte_level(specials), bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>",
        add_bos_token=True,
    )  # fmt: skip


def qwen2_tokenizer() -> Any:
    return transformers.Qwen2Tokenizer(**_byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]))


def llama_tokenizer() -> Any:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    # Not split at blanks when used, but trained so, else whole sentences become tokens.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    train_bpe(tokenizer, SENTENCES, 460, specials)
    return transformers.LlamaTokenizer(**_learned(tokenizer), add_bos_token=True)


def clip_tokenizer() -> Any:
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
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
    train_bpe(tokenizer, SENTENCES, 500, alphabet=pre_tokenizers.ByteLevel.alphabet())
    learned = _learned(tokenizer)
    vocab = learned["vocab"]
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab.setdefault(f"{byte}</w>", len(vocab))
    # Last, as in OpenAI's vocabulary: the text tower of old configurations pools at the highest id.
    vocab["<|startoftext|>"], vocab["<|endoftext|>"] = len(vocab), len(vocab) + 1
    return transformers.CLIPTokenizer(**learned, model_max_length=24)


def bert_tokenizer() -> Any:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    train_word_piece(tokenizer, SENTENCES, 300, specials)
    return transformers.BertTokenizer(
        vocab=_learned(tokenizer)["vocab"], do_lower_case=True, model_max_length=32
    )


def roberta_tokenizer() -> Any:
    # No model_max_length, as some RoBERTa checkpoints on the hub: the model has to know its own limit.
    return transformers.RobertaTokenizer(**_byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]))


def unigram_tokenizer(single: str, specials: tuple[str, ...], **options: Any) -> Any:
    """SentencePiece's Unigram with NFKC, as T5 and DeBERTa have it, with a template and special tokens."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    train_unigram(tokenizer, SENTENCES, 300, specials, options["unk_token"])
    used = [(name, index) for index, name in enumerate(specials) if name in single]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=used)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=40, model_input_names=["input_ids", "attention_mask"],
        **options,
    )  # fmt: skip


def t5_tokenizer() -> Any:
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return unigram_tokenizer("$A </s>", ("<pad>", "</s>", "<unk>"), **names)


def deberta_tokenizer() -> Any:
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    names |= {"bos_token": "[CLS]", "eos_token": "[SEP]", "mask_token": "[MASK]"}
    return unigram_tokenizer("[CLS] $A [SEP]", ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"), **names)


def siglip_tokenizer() -> Any:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    train_unigram(tokenizer, SENTENCES, 300, ["<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>",
        model_max_length=28, model_input_names=["input_ids"],
    )  # fmt: skip

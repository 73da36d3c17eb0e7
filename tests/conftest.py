"""Tiny random checkpoints of real architectures, saved to folders and loaded as a hub id would be.

Nothing here is downloaded. Tokenizers of each family are trained on a few sentences, models get random
weights that are large enough for every part of them to matter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    BertConfig,
    CLIPConfig,
    CLIPTextConfig,
    CLIPVisionConfig,
    GPT2Config,
    LlamaConfig,
    MobileNetV2Config,
    OPTConfig,
    Qwen2Config,
    RobertaConfig,
    SiglipConfig,
    SiglipTextConfig,
    SiglipVisionConfig,
    VisionTextDualEncoderConfig,
)

from promptfuse.models import Model, load_model
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


# --------------------------------------------------------------------------------------- tokenizers


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


# ------------------------------------------------------------------------------------------- models


def _excite(module: nn.Module) -> nn.Module:
    """Weights large enough that every part of a model shows in its output."""
    for name, parameter in module.named_parameters():
        if parameter.dim() == 2:
            scale = (
                0.5 if "embed" in name or "wte" in name or "wpe" in name else 1.2 / parameter.shape[1] ** 0.5
            )
            nn.init.normal_(parameter, std=scale)
        elif parameter.dim() == 4:
            nn.init.kaiming_normal_(parameter)
        elif parameter.dim() == 1 and name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    return module.eval()


def _ids(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def build_gpt2() -> tuple[Any, Any, Any]:
    tokenizer = gpt2_tokenizer()
    config = GPT2Config(**_ids(tokenizer), n_positions=40, n_embd=16, n_layer=2, n_head=2)
    return tokenizer, transformers.GPT2LMHeadModel(config), None


def build_llama() -> tuple[Any, Any, Any]:
    tokenizer = llama_tokenizer()
    config = LlamaConfig(
        **_ids(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64,
    )  # fmt: skip
    return tokenizer, transformers.LlamaForCausalLM(config), None


def build_opt() -> tuple[Any, Any, Any]:
    tokenizer = opt_tokenizer()
    # The projection in front of and behind the layers is what opt-350m has.
    config = OPTConfig(
        **_ids(tokenizer), hidden_size=24, word_embed_proj_dim=16, ffn_dim=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=48,
    )  # fmt: skip
    return tokenizer, transformers.OPTForCausalLM(config), None


def build_qwen2() -> tuple[Any, Any, Any]:
    tokenizer = qwen2_tokenizer()
    # More rows than ids, as published Qwen checkpoints have.
    ids = _ids(tokenizer) | {"vocab_size": len(tokenizer) + 13}
    config = Qwen2Config(
        **ids, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    return tokenizer, transformers.Qwen2ForCausalLM(config), None


def _clip_text(tokenizer: Any, **changes: Any) -> CLIPTextConfig:
    return CLIPTextConfig(**{
        **_ids(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 24, "projection_dim": 12, **changes,
    })  # fmt: skip


def build_clip(**changes: Any) -> tuple[Any, Any, Any]:
    tokenizer = clip_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32,
        patch_size=16, projection_dim=12,
    )  # fmt: skip
    config = CLIPConfig(
        text_config=_clip_text(tokenizer, **changes).to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=12,
    )
    size = {"shortest_edge": 32}
    processor = transformers.CLIPImageProcessorPil(size=size, crop_size={"height": 32, "width": 32})
    return tokenizer, transformers.CLIPModel(config), processor


def build_old_clip() -> tuple[Any, Any, Any]:
    """CLIP with the (wrong) end mark of OpenAI's configurations, which means: pool at the highest id."""
    return build_clip(bos_token_id=0, eos_token_id=2, pad_token_id=1)


def build_siglip() -> tuple[Any, Any, Any]:
    tokenizer = siglip_tokenizer()
    text = SiglipTextConfig(
        **_ids(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=28, projection_size=16,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    config = SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    processor = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return tokenizer, transformers.SiglipModel(config), processor


def build_dual() -> tuple[Any, Any, Any]:
    """As training/train_clip.py builds the embedded model: MobileNetV2 and CLIP's text tower."""
    tokenizer = clip_tokenizer()
    vision = transformers.MobileNetV2Model(
        MobileNetV2Config(image_size=64, depth_multiplier=0.25, tf_padding=True, hidden_size=1280)
    )
    text = transformers.CLIPTextModel(_clip_text(tokenizer, pad_token_id=tokenizer.eos_token_id))
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        vision.config, text.config, projection_dim=12
    )
    model = transformers.VisionTextDualEncoderModel(config, vision_model=vision, text_model=text)
    processor = transformers.CLIPImageProcessorPil(size={"height": 64, "width": 64}, do_center_crop=False)
    return tokenizer, model, processor


def build_bert() -> tuple[Any, Any, Any]:
    tokenizer = bert_tokenizer()
    config = BertConfig(
        **_ids(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, id2label={0: "Negative", 1: "Positive"},
        label2id={"Negative": 0, "Positive": 1},
    )  # fmt: skip
    return tokenizer, transformers.BertForSequenceClassification(config), None


def build_roberta() -> tuple[Any, Any, Any]:
    tokenizer = roberta_tokenizer()
    labels = ("negative", "neutral", "positive")
    config = RobertaConfig(
        **_ids(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=34, type_vocab_size=1, id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )  # fmt: skip
    return tokenizer, transformers.RobertaForSequenceClassification(config), None


def build_gpt2_tone() -> tuple[Any, Any, Any]:
    """A decoder as classifier, which pools at the last id that is not the padding; that is id 0 here."""
    tokenizer = gpt2_tokenizer()
    config = GPT2Config(
        **_ids(tokenizer) | {"pad_token_id": 0}, n_positions=40, n_embd=16, n_layer=2, n_head=2,
        id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1},
    )  # fmt: skip
    return tokenizer, transformers.GPT2ForSequenceClassification(config), None


BUILDERS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "gpt2": build_gpt2,
    "llama": build_llama,
    "opt": build_opt,
    "qwen2": build_qwen2,
    "clip": build_clip,
    "old-clip": build_old_clip,
    "siglip": build_siglip,
    "dual": build_dual,
    "bert": build_bert,
    "roberta": build_roberta,
    "gpt2-tone": build_gpt2_tone,
}


def build_mistral() -> tuple[Any, Any, Any]:
    tokenizer = llama_tokenizer()
    config = transformers.MistralConfig(
        **_ids(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=64,
    )  # fmt: skip
    return tokenizer, transformers.MistralForCausalLM(config), None


def build_gpt_neox() -> tuple[Any, Any, Any]:
    tokenizer = gpt2_tokenizer()
    # More rows than ids, as Pythia has.
    ids = _ids(tokenizer) | {"vocab_size": len(tokenizer) + 7}
    config = transformers.GPTNeoXConfig(
        **ids, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=40,
    )  # fmt: skip
    return tokenizer, transformers.GPTNeoXForCausalLM(config), None


TONES: dict[str, Any] = {
    "id2label": {0: "negative", 1: "positive"},
    "label2id": {"negative": 0, "positive": 1},
}


def build_distilbert() -> tuple[Any, Any, Any]:
    tokenizer = bert_tokenizer()
    config = transformers.DistilBertConfig(
        **_ids(tokenizer), **TONES, dim=16, hidden_dim=32, n_layers=2, n_heads=2, max_position_embeddings=32
    )
    return tokenizer, transformers.DistilBertForSequenceClassification(config), None


def build_deberta() -> tuple[Any, Any, Any]:
    """DeBERTa-v2 with the relative positions that published checkpoints of version 3 have."""
    tokenizer = deberta_tokenizer()
    config = transformers.DebertaV2Config(
        **_ids(tokenizer), **TONES, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=40, relative_attention=True, position_buckets=8,
        norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
        position_biased_input=False, pooler_hidden_size=16,
    )  # fmt: skip
    return tokenizer, transformers.DebertaV2ForSequenceClassification(config), None


def build_t5_encoder() -> tuple[Any, Any, Any]:
    tokenizer = t5_tokenizer()
    # More rows than ids, as T5 has.
    config = transformers.T5Config(
        **_ids(tokenizer) | {"vocab_size": len(tokenizer) + 20}, d_model=16, d_kv=8, d_ff=32, num_layers=2,
        num_heads=2, feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return tokenizer, transformers.T5EncoderModel(config), None


def build_bert_encoder() -> tuple[Any, Any, Any]:
    tokenizer = bert_tokenizer()
    config = BertConfig(
        **_ids(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32,
    )  # fmt: skip
    return tokenizer, transformers.BertModel(config), None


def build_short_gpt2() -> tuple[Any, Any, Any]:
    """The tokenizer gives ids that have no row."""
    tokenizer = gpt2_tokenizer()
    ids = _ids(tokenizer) | {"vocab_size": len(tokenizer) - 30}
    return (
        tokenizer,
        transformers.GPT2LMHeadModel(GPT2Config(**ids, n_positions=40, n_embd=16, n_layer=2, n_head=2)),
        None,
    )


def build_short_bert() -> tuple[Any, Any, Any]:
    """The tokenizer gives ids that have no row."""
    tokenizer = bert_tokenizer()
    config = BertConfig(
        **_ids(tokenizer) | {"vocab_size": len(tokenizer) - 30}, **TONES, hidden_size=16,
        intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    return tokenizer, transformers.BertForSequenceClassification(config), None


MORE_BUILDERS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "mistral": build_mistral,
    "gpt-neox": build_gpt_neox,
    "distilbert": build_distilbert,
    "deberta": build_deberta,
    "t5-encoder": build_t5_encoder,
    "bert-encoder": build_bert_encoder,
    "short-gpt2": build_short_gpt2,
    "short-bert": build_short_bert,
}
"""Apart, so that the weights of those above, which go by their rank, stay as they are."""


# ----------------------------------------------------------------------------------------- fixtures


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and advice of transformers while a test prepares something."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity_warning()
    transformers.logging.enable_progress_bar()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny models are slower on more threads, and sums stay the same from machine to machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with the named tiny checkpoint; tests that damage it copy it first."""
    root = tmp_path_factory.mktemp("checkpoints")

    @cache
    def build(name: str) -> Path:
        torch.manual_seed([*sorted(BUILDERS), *sorted(MORE_BUILDERS)].index(name))
        folder = root / name
        with quiet():
            tokenizer, module, processor = {**BUILDERS, **MORE_BUILDERS}[name]()
            _excite(module).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            if processor is not None:
                processor.save_pretrained(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def model(checkpoint: Callable[[str], Path]) -> Callable[..., Any]:
    """The named tiny checkpoint, loaded once for each type of its parameters."""

    @cache
    def load(name: str, dtype: torch.dtype = torch.float32) -> Model:
        return load_model(checkpoint(name), dtype=dtype)

    return load

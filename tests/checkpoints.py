"""Tiny random checkpoints of real architectures, saved to folders and loaded as a hub id would be.

Nothing here is downloaded. Tokenizers of each family are trained on a few sentences, models get random
weights that are large enough for every part of them to matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
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

from tests.checkpoint_tokenizers import (
    bert_tokenizer,
    clip_tokenizer,
    deberta_tokenizer,
    gpt2_tokenizer,
    llama_tokenizer,
    opt_tokenizer,
    qwen2_tokenizer,
    roberta_tokenizer,
    siglip_tokenizer,
    t5_tokenizer,
)


def excite(module: nn.Module) -> nn.Module:
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

"""Tiny random models of many architectures, made in memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers

from promptfuse.models import CausalLM, ImageTextModel, SentenceEncoder, SequenceClassifier
from tests.checkpoint_tokenizers import (
    bert_tokenizer,
    clip_tokenizer,
    gpt2_tokenizer,
    roberta_tokenizer,
    siglip_tokenizer,
)
from tests.checkpoints import excite

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
DIMENSIONS: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "emb_dim", "embedding_size"), 16),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "d_inner", "hidden_dim"), 32),
    **dict.fromkeys(LAYERS, 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    "num_experts_per_tok": 2,
    "num_key_value_heads": 1,
    "d_kv": 8,
}
"""What architectures call their sizes; a configuration takes what it knows. What is ``...`` is left out."""
HEADS = {"head_dim": 8}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_expand": 2}
SHIFTED = {"bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3}
SHIFTED_T5 = {"eos_token_id": 3, "decoder_start_token_id": 0}
LONGROPE = {
    "original_max_position_embeddings": 16,
    "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4,
        "original_max_position_embeddings": 16,
    }
}  # fmt: skip

LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "BioGpt": {},
    "Bloom": {},
    "CTRL": {},
    "CodeGen": {"n_head": 4, "num_attention_heads": 4, "num_heads": 4, "n_heads": 4, "rotary_dim": 4},
    "Cohere": {},
    "Falcon": {},
    "FalconMamba": {"state_size": 4},
    "GPT2": {},
    "GPTBigCode": {},
    "GPTJ": {"rotary_dim": 4},
    "GPTNeo": {"attention_types": [[["global", "local"], 1]], "window_size": 6},
    "GPTNeoX": {},
    "Gemma": HEADS,
    "Gemma2": {**HEADS, "sliding_window": 6},
    "Gemma3": {**HEADS, "sliding_window": 6},
    "Gemma3n": {
        **HEADS, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"],
        "hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": 200, "laurel_rank": 4,
        "num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0, 0.0],
    },
    "Granite": {},
    "Jamba": {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
        "mamba_d_state": 4, "mamba_dt_rank": 4,
    },
    "Lfm2": {"layer_types": ["conv", "full_attention"]},
    "Llama": {},
    "Mamba": {"state_size": 4},
    "Mamba2": {"num_heads": 4, "head_dim": 8, "state_size": 4, "n_groups": 1, "expand": 2, "chunk_size": 8},
    "Mistral": {**HEADS, "sliding_window": 6},
    "Mixtral": HEADS,
    "Mpt": {},
    "Moshi": {},
    "OPT": {},
    "Olmo": {},
    "Olmo2": {},
    "OpenAIGPT": {},
    "Persimmon": {},
    "Phi": {},
    "Phi3": LONGROPE,
    "Qwen2": {},
    "Qwen2Moe": {},
    "Qwen3": HEADS,
    "RecurrentGemma": {
        "lru_width": 16, "block_types": ["recurrent", "attention"], "attention_window_size": 8,
    },
    "Rwkv": {"attention_hidden_size": 16},
    "SmolLM3": {},
    "StableLm": {},
    "Starcoder2": {},
    "XGLM": {},
    "XLM": {"causal": True, "pad_index": 1},
}  # fmt: skip
HEAD = {
    "CTRL": "CTRLLMHeadModel",
    "GPT2": "GPT2LMHeadModel",
    "OpenAIGPT": "OpenAIGPTLMHeadModel",
    "XLM": "XLMWithLMHeadModel",
}
CONFIG = {"Gemma3": "Gemma3TextConfig", "Gemma3n": "Gemma3nTextConfig"}

CLASSIFIERS: dict[str, dict[str, Any]] = {
    "Albert": {},
    "Bart": SHIFTED,
    "Bert": {},
    "BigBird": {"block_size": 4, "num_random_blocks": 1},
    "CTRL": {},
    "Camembert": {},
    "ConvBert": {},
    "Deberta": {},
    "DebertaV2": {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
    "DistilBert": {},
    "Electra": {},
    "FNet": {},
    "Funnel": {"block_sizes": [1, 1], "d_head": 8, **dict.fromkeys(LAYERS, ...)},
    "GPT2": {},
    "IBert": {},
    "Llama": {},
    "Longformer": {"attention_window": [8, 8]},
    "MBart": SHIFTED,
    "MPNet": {},
    "MobileBert": {"normalization_type": "layer_norm", "true_hidden_size": 16, "intra_bottleneck_size": 16},
    "ModernBert": {},
    "Nystromformer": {},
    "Perceiver": {
        "num_latents": 4, "d_latents": 16, "num_self_attends_per_block": 1, "num_self_attention_heads": 2,
        "num_cross_attention_heads": 2,
    },
    "RemBert": {},
    "Reformer": {
        "attention_head_size": 8, "axial_pos_embds": False, "attn_layers": ["local"], "is_decoder": False,
        "feed_forward_size": 32,
    },
    "Roberta": {},
    "SqueezeBert": {},
    "T5": SHIFTED_T5,
    "UMT5": SHIFTED_T5,
    "XLM": {},
    "XLNet": {"max_position_embeddings": ...},
    "Yoso": {},
}  # fmt: skip


TOWER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 40, "projection_dim": 12, "project_dim": 12,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 16, "projection_dim": 12,
}  # fmt: skip
TOKENIZERS: dict[str, Any] = {
    "AltCLIP": roberta_tokenizer, "ChineseCLIP": bert_tokenizer, "CLIP": clip_tokenizer,
    "CLIPSeg": clip_tokenizer, "MetaClip2": clip_tokenizer, "Siglip": siglip_tokenizer,
}  # fmt: skip
"""Of image-text models, which are named by their keys."""
ENCODERS: dict[str, dict[str, Any]] = {
    "Bert": {},
    "ConvBert": {},
    "FNet": {},
    "MPNet": {},
    "ModernBert": {},
    "T5Encoder": {},
}


def _configured(kind: str, options: dict[str, Any]) -> Any:
    made = {name: value for name, value in options.items() if value is not ...}
    return getattr(transformers, CONFIG.get(kind, f"{kind}Config"))(**made)


@cache
def language_model(kind: str) -> CausalLM:
    """A random causal language model."""
    tokenizer = gpt2_tokenizer()
    ids = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    torch.manual_seed(0)
    config = _configured(kind, {**DIMENSIONS, **ids, **LANGUAGE_MODELS[kind]})
    module = getattr(transformers, HEAD.get(kind, f"{kind}ForCausalLM"))(config)
    return CausalLM(excite(module), tokenizer, kind)


@cache
def classifier(kind: str) -> SequenceClassifier:
    """A random sequence classifier of two labels."""
    tokenizer = bert_tokenizer()
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    torch.manual_seed(0)
    config = _configured(kind, {**DIMENSIONS, **ids, **CLASSIFIERS[kind]})
    module = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    return SequenceClassifier(excite(module), tokenizer, kind)


def _known(tokenizer: Any) -> dict[str, Any]:
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {"vocab_size": len(tokenizer), **{name: getattr(tokenizer, name) for name in names}}


@cache
def image_text_model(kind: str) -> ImageTextModel:
    """A random image-text model, without the processor of its photos."""
    tokenizer = TOKENIZERS[kind]()
    tokenizer.model_max_length = 40
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        text_config={**TOWER, **_known(tokenizer)}, vision_config=VISION, projection_dim=12
    )
    module = getattr(transformers, f"{kind}Model")(config)
    return ImageTextModel(excite(module), tokenizer, None, kind)


@cache
def sentence_encoder(kind: str) -> SentenceEncoder:
    """A random sentence encoder, whose features are the mean of its hidden states."""
    tokenizer = bert_tokenizer()
    torch.manual_seed(0)
    ids = {**_known(tokenizer), "bos_token_id": None, "eos_token_id": None}
    config = _configured(kind.removesuffix("Encoder"), {**DIMENSIONS, **ids, **ENCODERS[kind]})
    module = getattr(transformers, f"{kind}Model")(config)
    return SentenceEncoder(excite(module), tokenizer, kind)

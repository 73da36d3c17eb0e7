"""Tiny random pipelines of Stable Diffusion 1, 2 and XL, saved to folders as real ones are.

Their tokenizers are trained on a few sentences. As in the real ones, the padding of Stable Diffusion 2 and of
SDXL's second text encoder is ``!``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CLIPTextConfig

from tests.checkpoint_tokenizers import clip_tokenizer
from tests.checkpoints import excite

KINDS = ("sd1", "sd2", "sdxl")
LATENTS = 8
"""Of a side; a latent is two pixels wide."""


def _tokenizer(pad: str | None) -> Any:
    tokenizer = clip_tokenizer()
    if pad is None:
        return tokenizer
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return transformers.CLIPTokenizer.from_pretrained(folder, pad_token=pad)


def _encoder(kind: Any, tokenizer: Any, width: int, **changes: Any) -> Any:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, hidden_size=width, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=24, **changes,
    )  # fmt: skip
    return excite(kind(config))


def _unet(width: int, **changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "sample_size": LATENTS,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": width,
        "norm_num_groups": 2,
        "attention_head_dim": 2,
    }
    return excite(UNet2DConditionModel(**settings | changes))


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=[4, 8], down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4, norm_num_groups=2, sample_size=16,
    )  # fmt: skip


def build(kind: str) -> Any:
    """A pipeline of diffusers: ``sd1``, ``sd2`` (which predicts the velocity) or ``sdxl``."""
    import diffusers
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(KINDS.index(kind))
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    if kind == "sdxl":
        first, second = _tokenizer(None), _tokenizer("!")
        wide = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
        return diffusers.StableDiffusionXLPipeline(
            vae=_vae(),
            text_encoder=_encoder(CLIPTextModel, first, 16),
            text_encoder_2=_encoder(CLIPTextModelWithProjection, second, 20, projection_dim=12),
            tokenizer=first,
            tokenizer_2=second,
            unet=_unet(36, **wide, projection_class_embeddings_input_dim=6 * 8 + 12),
            scheduler=diffusers.EulerDiscreteScheduler(**betas),
            add_watermarker=False,
        )
    tokenizer = _tokenizer("!" if kind == "sd2" else None)
    scheduler = (
        diffusers.PNDMScheduler(**betas, skip_prk_steps=True, steps_offset=1)
        if kind == "sd1"
        else diffusers.DDIMScheduler(
            **betas, prediction_type="v_prediction", steps_offset=1, clip_sample=False
        )
    )
    return diffusers.StableDiffusionPipeline(
        vae=_vae(), text_encoder=_encoder(CLIPTextModel, tokenizer, 16), tokenizer=tokenizer, unet=_unet(16),
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def write(kind: str, folder: Path) -> Path:
    """Build a pipeline and save it."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        build(kind).save_pretrained(folder)
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
    return folder
